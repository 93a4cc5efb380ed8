-- Every reading as it came, one row a reading and record: raw_archive writes it by COPY, exactly once by its progress. No
-- primary key: (device_id, metric, event_time, partition, "offset") is one, and keeping it would double the writing.
create table raw_telemetry (
    event_time timestamptz      not null,
    device_id  text             not null,
    metric     text             not null,
    value      double precision not null,
    partition  int              not null,
    "offset"   bigint           not null
);
create index raw_telemetry_series on raw_telemetry (device_id, metric, event_time);
comment on table raw_telemetry is 'One row a reading, repetitions included, with the place of its record in the log.';
select partition_by_time('raw_telemetry', 'event_time', interval '1 day');
