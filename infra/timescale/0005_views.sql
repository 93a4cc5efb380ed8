-- What people read. Site, time zone, position, labels and units are joined here, when somebody asks.

-- Sample standard deviation; null of a single reading. PostgreSQL raises an error where a double would vanish or overflow.
create function stddev_of(count bigint, m2 double precision) returns double precision
    language sql immutable parallel safe as $$
    select case when count > 1 then case when m2 < 1e-280 then 0 else sqrt(m2 / (count - 1)) end end
$$;

create function range_of(min double precision, max double precision) returns double precision
    language sql immutable parallel safe as $$
    select case when max < 8e307 and min > -8e307 then max - min else 'Infinity' end
$$;

-- What people say of a series: its site, time zone, unit.
create view series_named as
select s.device_id, s.metric, d.site, coalesce(d.timezone, 'UTC') as timezone, d.latitude, d.longitude,
    coalesce(d.labels, '{}') as labels, coalesce(own.unit, every.unit) as unit, coalesce(own.cf_name, every.cf_name) as cf_name,
    s.first_seen, s.last_seen
from series as s
left join devices as d using (device_id)
left join metrics as own on own.metric = s.metric and own.device_id = s.device_id
left join metrics as every on every.metric = s.metric and every.device_id = '';

create view minutes as
select r.bucket, r.bucket at time zone coalesce(d.timezone, 'UTC') as local_time, r.device_id, d.site, r.metric,
    coalesce(own.unit, every.unit) as unit, r.count, r.mean, stddev_of(r.count, r.m2) as stddev, r.min, r.max,
    range_of(r.min, r.max) as range, r.first, r.last, r.first_ts, r.last_ts, r.m2, r.revision
from rollups_1m as r
left join devices as d using (device_id)
left join metrics as own on own.metric = r.metric and own.device_id = r.device_id
left join metrics as every on every.metric = r.metric and every.device_id = '';
comment on view minutes is 'Minutes that have closed, with stddev, range, local time, site and unit.';

-- Hours as they stand now: those computed, and those that minutes have changed since, the running hour among them.
create view hours_now as
select h.* from rollups_1h as h
where not exists (select from hour_changes as c where c.hour = h.bucket and c.device_id is null)
    and not exists (select from hour_changes as c
        where c.hour = h.bucket and c.device_id = h.device_id and c.metric = h.metric)
union all
select s.hour, m.device_id, m.metric, (m.p).*, m.revision
from (select distinct hour from hour_changes where device_id is null) as s,
    lateral (
        select device_id, metric, combine(count, mean, m2, min, max, first, last, first_ts, last_ts) as p,
            sum(revision)::int as revision
        from rollups_1m where bucket >= s.hour and bucket < s.hour + interval '1 hour' group by 1, 2
    ) as m
union all
select s.hour, m.device_id, m.metric, (m.p).*, m.revision
from (select distinct hour, device_id, metric from hour_changes as c where device_id is not null
        and not exists (select from hour_changes as w where w.hour = c.hour and w.device_id is null)) as s,
    lateral (
        select r.device_id, r.metric, combine(count, mean, m2, min, max, first, last, first_ts, last_ts) as p,
            sum(revision)::int as revision
        from rollups_1m as r
        where r.device_id = s.device_id and r.metric = s.metric
            and bucket >= s.hour and bucket < s.hour + interval '1 hour' group by 1, 2
    ) as m;

-- Days of which rollups_1d does not know all: device_id null means any series of the zone.
create view stale_days as
select distinct timezone, day, device_id, metric, day_start(day, timezone) as begins, day_start(day + 1, timezone) as ends
from (
    select timezone, day, device_id, metric from day_changes
    union
    select z.timezone, (instant at time zone z.timezone)::date, c.device_id, c.metric
    from (select distinct hour, device_id, metric from hour_changes) as c,
        (select coalesce(timezone, 'UTC') from devices union select 'UTC') as z (timezone),
        unnest(array[c.hour, c.hour + interval '1 hour' - interval '1 microsecond']) as instant
    where c.device_id is null or z.timezone = timezone_of(c.device_id)
) as noted;

-- What a day is made of: whole hours, and minutes where its ends lie within an hour.
create function parts_of_a_day(begins timestamptz, ends timestamptz) returns setof rollups_1h
    language sql stable parallel safe as $$
    select * from hours_now where bucket >= hour_at_or_after(begins) and bucket < date_bin('1 hour', ends, 'epoch')
    union all
    select * from rollups_1m where bucket >= begins and bucket < hour_at_or_after(begins)
    union all
    select * from rollups_1m where bucket >= date_bin('1 hour', ends, 'epoch') and bucket < ends
$$;

create view days_now as
select d.* from rollups_1d as d left join devices as v using (device_id)
where not exists (select from stale_days as s
        where s.begins = d.bucket and s.device_id is null and s.timezone = coalesce(v.timezone, 'UTC'))
    and not exists (select from stale_days as s
        where s.begins = d.bucket and s.device_id = d.device_id and s.metric = d.metric)
union all
select s.begins, p.device_id, p.metric, (p.p).*, p.revision
from (select distinct timezone, begins, ends from stale_days as s where device_id is null) as s,
    lateral (
        select h.device_id, h.metric, combine(count, mean, m2, min, max, first, last, first_ts, last_ts) as p,
            sum(revision)::int as revision
        from parts_of_a_day(s.begins, s.ends) as h left join devices as v using (device_id)
        where coalesce(v.timezone, 'UTC') = s.timezone group by 1, 2
    ) as p
union all
select s.begins, p.device_id, p.metric, (p.p).*, p.revision
from (select distinct timezone, begins, ends, device_id, metric from stale_days as s where device_id is not null
        and not exists (select from stale_days as w where (w.timezone, w.begins) = (s.timezone, s.begins) and w.device_id is null)
        and timezone = timezone_of(device_id)) as s,
    lateral (
        select h.device_id, h.metric, combine(count, mean, m2, min, max, first, last, first_ts, last_ts) as p,
            sum(revision)::int as revision
        from parts_of_a_day(s.begins, s.ends) as h
        where h.device_id = s.device_id and h.metric = s.metric group by 1, 2
    ) as p;

create view hours as
select r.bucket, r.bucket at time zone coalesce(d.timezone, 'UTC') as local_time, r.device_id, d.site, r.metric,
    coalesce(own.unit, every.unit) as unit, r.count, r.mean, stddev_of(r.count, r.m2) as stddev, r.min, r.max,
    range_of(r.min, r.max) as range, r.first, r.last, r.first_ts, r.last_ts, r.m2, r.revision
from hours_now as r
left join devices as d using (device_id)
left join metrics as own on own.metric = r.metric and own.device_id = r.device_id
left join metrics as every on every.metric = r.metric and every.device_id = '';
comment on view hours is 'Hours, exact at any moment: the running one too, and those that late readings have just changed.';

create view days as
select r.bucket, (r.bucket at time zone coalesce(d.timezone, 'UTC'))::date as day, r.device_id, d.site, r.metric,
    coalesce(own.unit, every.unit) as unit, r.count, r.mean, stddev_of(r.count, r.m2) as stddev, r.min, r.max,
    range_of(r.min, r.max) as range, r.first, r.last, r.first_ts, r.last_ts, r.m2, r.revision
from days_now as r
left join devices as d using (device_id)
left join metrics as own on own.metric = r.metric and own.device_id = r.device_id
left join metrics as every on every.metric = r.metric and every.device_id = '';
comment on view days is 'Days in the time zone of the device''s site (UTC without one), exact at any moment, today too.';

-- The last n minutes of each series, at each minute that has data: select * from rolling(15) where device_id = '…'. Minutes
-- without data count nothing; the frame is time, not rows. Say since when: else all that is kept is read.
create function rolling(minutes int, since timestamptz default '-infinity') returns table (
    bucket timestamptz, device_id text, metric text, count bigint, mean double precision, stddev double precision,
    min double precision, max double precision, first double precision, last double precision
) language sql stable parallel safe as $$
    select bucket, device_id, metric, (p).count, (p).mean, stddev_of((p).count, (p).m2), (p).min, (p).max, (p).first, (p).last
    from (
        select r.bucket, r.device_id, r.metric,
            combine(r.count, r.mean, r.m2, r.min, r.max, r.first, r.last, r.first_ts, r.last_ts) over (
                partition by r.device_id, r.metric order by r.bucket
                range between make_interval(mins => minutes - 1) preceding and current row) as p
        from rollups_1m as r where r.bucket > since - make_interval(mins => minutes)
    ) as framed
    where bucket >= since
$$;

-- The last value of each series: one look into an index each, from where series says that there is one.
create view latest as
select s.device_id, s.metric, s.site, s.unit, l.last as value, coalesce(l.last_ts, s.last_seen) as at,
    now() - coalesce(l.last_ts, s.last_seen) as age, l.bucket
from series_named as s
left join lateral (
    select r.last, r.last_ts, r.bucket from rollups_1m as r
    where r.device_id = s.device_id and r.metric = s.metric and r.bucket > s.last_seen - interval '1 day'
    order by r.bucket desc limit 1
) as l on true;
comment on view latest is 'The last value of each series; null where it is older than minutes are kept.';

-- Each series' own cadence, from its last 120 minutes with data before an instant: the median distance of two.
create function cadence(before timestamptz) returns table (device_id text, metric text, first_seen timestamptz, every_ interval)
    language sql stable parallel safe as $$
    select s.device_id, s.metric, s.first_seen, g.median
    from series as s, lateral (
        select percentile_disc(0.5) within group (order by distance) as median
        from (
            select bucket - lag(bucket) over (order by bucket) as distance
            from (
                select r.bucket from rollups_1m as r
                where r.device_id = s.device_id and r.metric = s.metric and r.bucket < before
                order by r.bucket desc limit 120
            ) as latest_minutes
        ) as distances
    ) as g
$$;

-- The whole minutes between two instants that have neither expired nor are still to close.
create function readable_from(since timestamptz) returns timestamptz language sql stable as $$
    select date_bin('1 minute', greatest(since, (select expired_until from time_tables where name = 'rollups_1m'))
        + interval '59.999999 seconds', 'epoch')
$$;

create function readable_until(until timestamptz) returns timestamptz language sql stable as $$
    select date_bin('1 minute', least(until, coalesce(minutes_closed_until(), now())), 'epoch')
$$;

-- How many of the minutes that a series should have it has. What has expired or is not closed yet does not count. A series
-- that reports by event and not by the clock has no cadence: its expected is what its median would be.
create function completeness_between(since timestamptz, until timestamptz) returns table (
    device_id text, metric text, cadence interval, expected bigint, present bigint, only_late bigint, completeness double precision
) language sql stable as $$
    select device_id, metric, every_, expected, present, only_late, least(1, present / nullif(expected, 0)::float8)
    from (
        select c.device_id, c.metric, c.every_,
            greatest(0, round(extract(epoch from readable_until(until)
                - greatest(readable_from(since), date_bin('1 minute', c.first_seen, 'epoch'))) / extract(epoch from c.every_)))::bigint
                as expected,
            p.present, p.only_late
        from cadence(until) as c, lateral (
            select count(*) as present, count(*) filter (where r.revision = r.count) as only_late from rollups_1m as r
            where r.device_id = c.device_id and r.metric = c.metric
                and r.bucket >= readable_from(since) and r.bucket < readable_until(until)
        ) as p
    ) as counted
$$;

create view completeness as select * from completeness_between(now() - interval '1 day', now());
comment on view completeness is
    'The last day: minutes with data (present; only_late: by late readings alone) over minutes expected by the series'' cadence.';
