-- Where minutes are missing, and why as far as this database knows:
--     no device     no series of any device has these minutes: the pipeline, the broker or the network was down
--     device        the device sent nothing, or nothing of it was accepted
--     metric        the device sent other metrics
--     waiting       late readings of it wait for the raw archive (late_waiting)
-- What was rejected lies in the topic raw.dead_letter and is not known here: it shows as device or metric.
create function gaps_between(since timestamptz, until timestamptz) returns table (
    device_id text, metric text, starts timestamptz, ends timestamptz, missing bigint, cause text
) language sql stable as $$
    select g.device_id, g.metric, g.starts, g.ends,
        greatest(1, round(extract(epoch from g.ends - g.starts) / extract(epoch from g.every_)))::bigint,
        case
            when not exists (select from rollups_1m as r where r.bucket >= g.starts and r.bucket < g.ends) then 'no device'
            when exists (select from late_waiting as w where w.device_id = g.device_id and w.metric = g.metric
                and w.event_time >= g.starts and w.event_time < g.ends) then 'waiting'
            when not exists (select from series as s, lateral (
                    select from rollups_1m as r where r.device_id = s.device_id and r.metric = s.metric
                        and r.bucket >= g.starts and r.bucket < g.ends limit 1) as other
                where s.device_id = g.device_id) then 'device'
            else 'metric'
        end
    from (
        select c.device_id, c.metric, c.every_,
            case when begins then previous else previous + c.every_ end as starts, bucket as ends
        from cadence(until) as c, lateral (
            select bucket, lag(bucket) over w as previous, lag(edge) over w as begins
            from (
                select greatest(readable_from(since), date_bin('1 minute', c.first_seen, 'epoch')) as bucket, true as edge
                union all
                select r.bucket, false from rollups_1m as r where r.device_id = c.device_id and r.metric = c.metric
                    and r.bucket >= readable_from(since) and r.bucket < readable_until(until)
                union all
                select readable_until(until), false
            ) as there
            window w as (order by bucket, edge desc)
        ) as steps
        where bucket - previous >= c.every_ * case when begins then 1 else 1.5 end
    ) as g
    where g.ends > g.starts
$$;

create view gaps as select * from gaps_between(now() - interval '1 day', now());
comment on view gaps is 'The last day: where minutes are missing, by the series'' own cadence, and why as far as is known here.';
