-- Ten questions people ask, to copy and to change. :'device', :'metric' and :'site' are psql's variables:
--     psql "$DATABASE_URL" -v device=boiler-7 -v metric=temperature -v site=berlin -f infra/timescale/queries.sql
-- A test runs each, and looks at what it reads of five million rows.

-- name: now
-- What does a device say right now, and how old is that?
select metric, value, unit, at, age from latest where device_id = :'device' order by metric;

-- name: last_hour
-- What did a series do in the last hour, minute by minute?
select local_time, count, mean, stddev, min, max from minutes
where device_id = :'device' and metric = :'metric' and bucket >= now() - interval '1 hour' order by bucket;

-- name: week_by_hour
-- And in the last week, hour by hour, with what came late?
select local_time, count, mean, stddev, min, max, revision from hours
where device_id = :'device' and metric = :'metric' and bucket >= now() - interval '7 days' order by bucket;

-- name: site_by_day
-- How did each day of the last month go at a site, by the site's own clock, all devices together?
select day, sum(count)::bigint as readings, (combine(count, mean, m2, min, max, first, last, first_ts, last_ts)).mean, min(min), max(max)
from days where site = :'site' and metric = :'metric' and bucket >= now() - interval '31 days' group by day order by day;

-- name: highest
-- Which ten devices had the highest values of a metric in the last day, and when?
select distinct on (max, device_id) device_id, site, max, unit, local_time from hours
where metric = :'metric' and bucket >= now() - interval '1 day' order by max desc, device_id, bucket desc limit 10;

-- name: fleet_by_hour
-- What is the mean and the spread of a metric over the whole fleet, each hour of the last day?
select bucket, count(*) as devices, (combine(count, mean, m2, min, max, first, last, first_ts, last_ts)).mean,
    stddev_of(sum(count)::bigint, (combine(count, mean, m2, min, max, first, last, first_ts, last_ts)).m2) as stddev
from hours where metric = :'metric' and bucket >= now() - interval '1 day' group by bucket order by bucket;

-- name: rolling_quarter
-- How does the mean of the last 15 minutes move, over six hours?
select bucket, count, mean, stddev from rolling(15, now() - interval '6 hours')
where device_id = :'device' and metric = :'metric' order by bucket;

-- name: silent
-- Which series have said nothing for an hour, though they did so within a week? The longest silence first.
select device_id, site, metric, last_seen, now() - last_seen as silent_for from series_named
where last_seen between now() - interval '7 days' and now() - interval '1 hour' order by last_seen limit 100;

-- name: gaps
-- Where are minutes of a device missing since yesterday, and why?
select metric, starts, ends, missing, cause from gaps where device_id = :'device' order by starts, metric;

-- name: late
-- Who sends late, how many readings since yesterday, and how late?
select device_id, count(*) as readings, percentile_disc(0.5) within group (order by seen_at - event_time) as typically,
    max(seen_at - event_time) as at_most
from late_readings where event_time >= now() - interval '1 day' group by device_id order by readings desc limit 10;
