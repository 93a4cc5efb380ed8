-- Tables divided by time: TimescaleDB makes them hypertables, plain PostgreSQL partitions that this project makes itself.
-- And what people say of their devices, which is joined when they read, never when rows are written: a replay stays exact.
--
-- No table has a default partition: every new partition would have to wait for all who read and write it, and scan it;
-- and what lies in it could not be dropped by time. A partition that is missing is made by whoever meets its lack.

do $$
begin
    if current_setting('shared_preload_libraries') ~ 'timescaledb'
        and exists (select from pg_available_extensions where name = 'timescaledb')
        and not exists (select from pg_extension where extname = 'timescaledb')
    then
        execute 'create extension timescaledb';
    end if;
exception when insufficient_privilege then
    raise notice 'TimescaleDB is installed but this user may not create the extension: plain partitions are made';
end
$$;

create function store_edition() returns text language sql stable as $$
    select case
        when not exists (select from pg_extension where extname = 'timescaledb') then 'postgres'
        when current_setting('timescaledb.license', true) = 'apache' then 'apache'
        else 'timescale'
    end
$$;
comment on function store_edition is
    'What this database is: postgres, apache or timescale; the last alone has a columnstore and jobs of its own.';

create table time_tables (
    name              text        primary key,
    time_column       text        not null,
    width             interval    not null check (extract(epoch from width) >= 3600),
    keep              interval    check (keep >= width),
    columnstore_after interval,
    expired_until     timestamptz
);
comment on table time_tables is 'Tables divided by time; ./justw maintain brings keep and columnstore_after here from the settings.';
comment on column time_tables.width is 'Of a partition or chunk; they are aligned to the epoch.';
comment on column time_tables.keep is 'How long rows are kept; null: for ever.';
comment on column time_tables.expired_until is 'Rows before it were dropped on purpose: they are expired, not missing. Null: nothing was.';

create function partition_start(instant timestamptz, width interval) returns timestamptz
    language sql immutable parallel safe as $$
    select to_timestamp((floor(extract(epoch from instant) / extract(epoch from width)) * extract(epoch from width))::float8)
$$;

-- Make the partitions that hold these instants, where they are missing; answers with how many that were. Safe to run at
-- once with itself and with writers. On a hypertable there is nothing to do. It acts as its owner, so that a writer need
-- not own the table.
create function make_partitions(table_name text, instants timestamptz[]) returns int
    language plpgsql security definer as $$
#variable_conflict use_variable
declare
    made int := 0;
    their_width interval;
    begins timestamptz;
    part text;
begin
    select width into their_width from time_tables where name = table_name;
    if not found or (select relkind from pg_class where oid = to_regclass(quote_ident(table_name))) <> 'p' then
        return 0;
    end if;
    execute format('lock table %I in share update exclusive mode', table_name); -- waits for another that makes some, not for writers
    for begins in select distinct partition_start(instant, their_width) as b from unnest(instants) as instant order by b loop
        part := format('%s_p%s', left(table_name, 48), to_char(begins at time zone 'utc',
            case when extract(epoch from their_width)::bigint % 86400 = 0 then 'YYYYMMDD' else 'YYYYMMDDHH24' end));
        continue when to_regclass(quote_ident(part)) is not null;
        execute format('create table %I (like %I including all)', part, table_name);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)', table_name, part, begins,
            to_timestamp((extract(epoch from begins) + extract(epoch from their_width))::float8));
        made := made + 1;
    end loop;
    return made;
end
$$;

-- Divide a table by time, with the rows it has. Every unique key of it must hold the column of time.
create function partition_by_time(table_name text, time_column text, width interval) returns void language plpgsql as $$
#variable_conflict use_variable
declare
    undivided text := left(table_name, 50) || '_undivided';
    instants timestamptz[];
    index_name name;
begin
    insert into time_tables (name, time_column, width) values (table_name, time_column, width);
    if store_edition() <> 'postgres' then
        execute format('select create_hypertable(%L, %L, chunk_time_interval => %L::interval, '
            'create_default_indexes => false, migrate_data => true)', quote_ident(table_name), time_column, width);
        return;
    end if;
    execute format('lock table %I in access exclusive mode', table_name);
    execute format('alter table %I rename to %I', table_name, undivided);
    for index_name in select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
        where i.indrelid = to_regclass(quote_ident(undivided))
    loop
        execute format('alter index %I rename to %I', index_name, left(index_name, 50) || '_undivided');
    end loop;
    execute format('create table %I (like %I including all) partition by range (%I)', table_name, undivided, time_column);
    execute format('comment on table %I is %L', table_name, obj_description(to_regclass(quote_ident(undivided))));
    execute format('select array_agg(distinct partition_start(%I, %L)) from %I', time_column, width, undivided) into instants;
    perform make_partitions(table_name, coalesce(instants, '{}') || now());
    execute format('insert into %I select * from %I', table_name, undivided);
    execute format('drop table %I', undivided);
end
$$;

-- Drop what is older than it is kept, whole partitions only, and note until when. One table a call, in a transaction that
-- ought to have a short lock_timeout: while it waits for a reader, writers wait behind it.
create function expire_partitions(table_name text) returns int language plpgsql security definer as $$
#variable_conflict use_variable
declare
    their time_tables;
    boundary timestamptz;
    part regclass;
    dropped int := 0;
begin
    select * into their from time_tables where name = table_name and keep is not null;
    if not found then
        return 0;
    end if;
    boundary := partition_start(now() - their.keep, their.width);
    if (select relkind from pg_class where oid = to_regclass(quote_ident(table_name))) = 'p' then
        for part in
            select c.oid from pg_inherits join pg_class c on c.oid = inhrelid
            where inhparent = to_regclass(quote_ident(table_name))
                and substring(pg_get_expr(c.relpartbound, c.oid) from $re$TO \('([^']*)'\)$re$)::timestamptz <= boundary
            order by c.relname
        loop
            execute format('drop table %s', part);
            dropped := dropped + 1;
        end loop;
    else
        execute format('select count(*) from drop_chunks(%L, older_than => %L::timestamptz)', quote_ident(table_name), boundary)
            into dropped;
    end if;
    update time_tables set expired_until = boundary where name = table_name and coalesce(expired_until < boundary, true);
    return dropped;
end
$$;

-- On TimescaleDB's Timescale edition: the columnstore by columnstore_after, one segment a series, in order of time.
-- Answers with whether there is one. Late readings have none: they are few, and are found by their identity.
create function keep_columnstore(table_name text) returns boolean language plpgsql as $$
#variable_conflict use_variable
declare
    their time_tables;
begin
    select * into their from time_tables where name = table_name;
    if not found or store_edition() <> 'timescale' then
        return false;
    elsif not exists (select from timescaledb_information.hypertables h
        where h.hypertable_schema = current_schema and h.hypertable_name = table_name)
    then
        return false;
    end if;
    execute format('call remove_columnstore_policy(%L, if_exists => true)', quote_ident(table_name));
    if their.columnstore_after is null then
        return false;
    end if;
    if not (select compression_enabled from timescaledb_information.hypertables h
        where h.hypertable_schema = current_schema and h.hypertable_name = table_name)
    then
        execute format('alter table %I set (timescaledb.enable_columnstore = true, '
            'timescaledb.segmentby = ''device_id, metric'', timescaledb.orderby = %L)', table_name, quote_ident(their.time_column));
    end if;
    execute format('call add_columnstore_policy(%L, after => %L::interval)', quote_ident(table_name), their.columnstore_after);
    return true;
exception when feature_not_supported then -- the edition refuses, whatever its licence setting says
    return false;
end
$$;

-- A rollup table for windows of any length, as before, now divided by time.
drop function create_rollup_table(text);
create function create_rollup_table(name text, width interval default '1 day') returns void language plpgsql as $$
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
    perform partition_by_time(name, 'bucket', width);
end
$$;

-- What this database has already: every rollup table, known by its comment, late readings, and flags where they are.
select partition_by_time(relname, 'bucket', interval '1 day') from pg_class
    where relnamespace = current_schema::regnamespace and relkind = 'r'
        and obj_description(oid, 'pg_class') = 'One row a series and window that has closed.';
select partition_by_time('late_readings', 'event_time', interval '1 day');
select partition_by_time('anomaly_flags', 'bucket', interval '7 days') where to_regclass('anomaly_flags') is not null;

create function is_timezone(name text) returns boolean language plpgsql immutable as $$
begin
    perform now() at time zone name;
    return name !~ '^[+-]?[0-9:]+$'; -- POSIX offsets mean the opposite of what people write
exception when invalid_parameter_value then
    return false;
end
$$;

create table devices (
    device_id text  primary key,
    site      text,
    timezone  text  check (is_timezone(timezone)),
    latitude  double precision check (latitude between -90 and 90),
    longitude double precision check (longitude between -180 and 180),
    labels    jsonb not null default '{}' check (jsonb_typeof(labels) = 'object')
);
comment on table devices is 'What people say of a device; ./justw devices import FILE.csv. A device may be missing here.';
comment on column devices.timezone is 'IANA name of the site''s time zone: its days are rolled up by it; without one, UTC.';

-- Units, and names by the CF conventions (cfconventions.org). A device''s own line wins over the one for all devices ('').
create table metrics (
    metric    text not null,
    device_id text not null default '',
    unit      text,
    cf_name   text,
    primary key (metric, device_id)
);
comment on column metrics.device_id is 'Empty: for every device that has no line of its own.';
comment on column metrics.unit is 'As UCUM or UDUNITS write it: degC, kW, m s-1.';
comment on column metrics.cf_name is 'Standard name by the CF conventions: air_temperature.';

-- Functions that act as their owner look names up in our schema only, never in a caller's temporary one.
do $$
declare
    own regprocedure;
begin
    for own in select oid from pg_proc where pronamespace = current_schema::regnamespace and prosecdef
        and proname in ('make_partitions', 'expire_partitions')
    loop
        execute format('alter function %s set search_path = %I, public, pg_temp', own, current_schema);
    end loop;
end
$$;
revoke execute on function expire_partitions(text) from public;
