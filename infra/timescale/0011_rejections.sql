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

-- Gaps as in 0009_gaps.sql, of which one more cause is known now, before all others:
--     rejected      something of the device was rejected meanwhile, or in the minute after (rejections says for which reasons)
alter function gaps_between rename to gaps_by_rollups;
create function gaps_between(since timestamptz, until timestamptz) returns table (
    device_id text, metric text, starts timestamptz, ends timestamptz, missing bigint, cause text
) language sql stable as $$
    select g.device_id, g.metric, g.starts, g.ends, g.missing,
        case
            when exists (select from rejections as n where n.device_id = g.device_id
                and n.minute >= g.starts and n.minute <= g.ends) then 'rejected'
            else g.cause
        end
    from gaps_by_rollups(since, until) as g
$$;
create or replace view gaps as select * from gaps_between(now() - interval '1 day', now());

comment on column anomaly_episodes.cause is
    'Why it closed: calm, forgotten (the series is long gone) or settings (the rule changed, or its state began anew).';
