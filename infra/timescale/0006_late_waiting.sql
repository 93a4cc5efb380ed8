-- Where raw_archive runs, a late reading waits here until the archive has passed its offset; then it is told whether it
-- repeats a reading that was on time. Meanwhile the ledger counts it under open.
create table late_waiting (
    flow       text             not null,
    topic      text             not null,
    partition  int              not null,
    "offset"   bigint           not null,
    metric     text             not null,
    device_id  text             not null,
    event_time timestamptz      not null,
    value      double precision not null,
    seen_at    timestamptz      not null,
    primary key (flow, topic, partition, "offset", metric)
);

alter table late_readings add archived_until bigint;
comment on column late_readings.archived_until is
    'Position of the raw archive when the reading was looked up in it; null where no archive ran.';
comment on column ledger.open is
    'Readings not decided yet: in open windows, or late and waiting for the raw archive (late_waiting).';
