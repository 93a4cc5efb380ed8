-- The tables of the spine: rollups, late readings, progress and ledger (DESIGN.md, sections 3 and 5).
-- Plain PostgreSQL 15 or later, and TimescaleDB. Every primary key holds the column of time, where there is one, so that
-- a table can be partitioned by it later without another key.

-- A rollup table for windows of any length: one line in a migration of one's own makes another,
--     select create_rollup_table('rollups_5m');
-- Columns: those of schemas/aggregates.py, in its order, and revision; a start-up check compares them.
create function create_rollup_table(name text) returns void language plpgsql as $$
begin
    execute format($table$
        create table %I (
            bucket    timestamptz      not null,
            device_id text             not null,
            metric    text             not null,
            count     bigint           not null,
            mean      double precision not null,
            m2        double precision not null,
            min       double precision not null,
            max       double precision not null,
            first     double precision not null,
            last      double precision not null,
            first_ts  timestamptz      not null,
            last_ts   timestamptz      not null,
            revision  int              not null default 0,
            primary key (device_id, metric, bucket)
        )
    $table$, name);
    execute format('create index on %I (bucket)', name);
    execute format('comment on table %I is %L', name, 'One row a series and window that has closed.');
    execute format('comment on column %I.bucket is %L', name, 'Start of the window; it ends before the next one.');
    execute format('comment on column %I.m2 is %L', name,
        'Sum of squared deviations from the mean: the variance is m2 / (count - 1).');
    execute format('comment on column %I.revision is %L', name,
        'Late readings that the row has taken in since its window closed; the highest revision is the newest.');
end
$$;

select create_rollup_table('rollups_1m');

-- Readings whose window had closed before their record. Each is in its row, once.
create table late_readings (
    device_id  text             not null,
    metric     text             not null,
    event_time timestamptz      not null,
    value      double precision not null,
    flow       text             not null,
    partition  int              not null,
    "offset"   bigint           not null,
    seen_at    timestamptz      not null
);
-- Identity is the value's bits, not its equality: 0.0 and -0.0 are two readings. By flow, since each flow has rows of its own.
create unique index late_readings_identity
    on late_readings (device_id, metric, event_time, (float8send(value)), flow);
comment on column late_readings.seen_at is 'When its record was appended to the log, by the log''s own time.';

-- How far each partition of a topic is accounted for by a flow. The fence of every commit: generation and position.
create table progress (
    flow             text        not null,
    topic            text        not null,
    partition        int         not null,
    generation       bigint      not null,
    position         bigint      not null,
    resume           bigint      not null,
    start            bigint      not null,
    closed_until     timestamptz,
    ticks            jsonb       not null default '{}',
    judged           jsonb       not null default '[]',
    anchor_offset    bigint,
    anchor_timestamp bigint,
    anchor_checksum  bigint,
    topic_id         text        not null,
    partitions       int         not null,
    output           text        not null,
    shape            text        not null,
    claimed_by       text        not null,
    claimed_at       timestamptz not null default now(),
    committed_at     timestamptz,
    primary key (flow, topic, partition),
    check (start <= resume and resume <= position)
) with (fillfactor = 50);
comment on table progress is 'The checkpoint: read at start, moved in the transaction that writes the rows it accounts for.';
comment on column progress.generation is 'Grows with every claim; an older holder is fenced off.';
comment on column progress.position is 'The next offset to account for.';
comment on column progress.resume is 'The lowest offset that still contributes to an open window.';
comment on column progress.closed_until is 'End of the newest closed window; never goes back.';
comment on column progress.ticks is 'Each ingest worker''s highest tick, ms since the epoch.';
comment on column progress.judged is 'The limits [from offset, clock skew ms, event age ms] by which readings were judged.';
comment on column progress.partitions is 'Partitions the topic had: with another number devices lie elsewhere.';
comment on column progress.output is 'The table this flow writes.';
comment on column progress.shape is 'Settings that may not change during the life of a flow.';

-- What became of every offset and every reading, cumulative since progress.start, exact at every commit:
--     position - start = messages + ticks + refused + gaps
--     readings         = counted + late + duplicates + late_duplicates + open
create table ledger (
    flow            text   not null,
    topic           text   not null,
    partition       int    not null,
    messages        bigint not null default 0,
    ticks           bigint not null default 0,
    refused         bigint not null default 0,
    gaps            bigint not null default 0,
    readings        bigint not null default 0,
    counted         bigint not null default 0,
    late            bigint not null default 0,
    duplicates      bigint not null default 0,
    late_duplicates bigint not null default 0,
    open            bigint not null default 0,
    combined        bigint not null default 0,
    primary key (flow, topic, partition)
) with (fillfactor = 50);
comment on column ledger.combined is
    'Rollups that met a row of the same key and were combined with it; not 0 where one device is in two partitions.';

-- The same by the day (UTC) of the reading's window: sum(count) of the flow's table for that day = counted + late.
create table ledger_days (
    flow      text   not null,
    topic     text   not null,
    partition int    not null,
    day       date   not null,
    counted   bigint not null default 0,
    late      bigint not null default 0,
    primary key (flow, topic, partition, day)
) with (fillfactor = 50);
