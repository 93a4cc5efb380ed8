-- What was rejected, by device and minute: counted from the topic raw.dead_letter by ./justw maintain --letters, each letter
-- once, so that a gap can say that the device did speak. The letters themselves stay where they are (./justw dead-letters).
create table rejections (
    minute    timestamptz not null,
    device_id text        not null,
    reason    text        not null,
    letters   bigint      not null,
    primary key (device_id, minute, reason)
);
create index on rejections (minute);
comment on table rejections is 'Payloads that were rejected, whole or for a part, of devices that can be told from them.';
comment on column rejections.minute is 'When it came, by the time that Kafka has of the letter; what it speaks of may be older.';
select partition_by_time('rejections', 'minute', interval '7 days');

-- How far each partition of the dead letter was counted; a topic that is made again has another id.
create table letters_noted (
    topic     text   not null,
    topic_id  text   not null,
    partition int    not null,
    next      bigint not null,
    primary key (topic, topic_id, partition)
);

-- As in 0009_gaps.sql, and before all else
--     rejected      something of the device was rejected meanwhile, or in the minute after (rejections says for which reasons)
create or replace function gaps_between(since timestamptz, until timestamptz) returns table (
    device_id text, metric text, starts timestamptz, ends timestamptz, missing bigint, cause text
) language sql stable as $$
    select g.device_id, g.metric, g.starts, g.ends,
        greatest(1, round(extract(epoch from g.ends - g.starts) / extract(epoch from g.every_)))::bigint,
        case
            when exists (select from rejections as n where n.device_id = g.device_id
                and n.minute >= g.starts and n.minute <= g.ends) then 'rejected'
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

comment on column anomaly_episodes.cause is
    'Why it closed: calm, forgotten (the series is long gone) or settings (the rule changed, or its state began anew).';
