-- Hours and days, combined from minutes; and which series there are.
--
-- The writer of minutes notes in its own transaction which hours it touched: one line an hour and commit for new windows,
-- one a series and hour for late revisions. Notes are only ever added, so writers wait neither for each other nor for a
-- refresh; refresh_rollups() computes what the notes name from a snapshot that is younger than they are, and deletes
-- exactly those notes. What has a note is stale, and the views hours and days (0005) compute it when asked.

create type rollup_partial as (
    count bigint, mean double precision, m2 double precision, min double precision, max double precision,
    first double precision, last double precision, first_ts timestamptz, last_ts timestamptz
);

-- A double from a numeric that may be too large or too small for one.
create function clamped_double(value numeric) returns double precision language sql immutable parallel safe as $$
    select case
        when value > 1.7976931348623157e308 then 'Infinity'
        when abs(value) < 5e-324 then 0
        else value::double precision
    end
$$;

-- Chan, Golub & LeVeque's update. PostgreSQL raises an error where a product of doubles overflows or vanishes, so what
-- lies far from 1 takes the slow way, in numeric. Extremes are those of IEEE 754's total order: -0 is below 0.
create function combine_step(
    a rollup_partial, count bigint, mean double precision, m2 double precision, min double precision,
    max double precision, first double precision, last double precision, first_ts timestamptz, last_ts timestamptz
) returns rollup_partial language plpgsql immutable parallel safe as $$
#variable_conflict use_variable
declare
    delta double precision;
    exact numeric;
begin
    if count is null then
        return a;
    elsif a.count is null then
        return (count, mean, m2, min, max, first, last, first_ts, last_ts)::rollup_partial;
    end if;
    if abs(mean) < 1e140 and abs(a.mean) < 1e140 and m2 < 1e300 and a.m2 < 1e300
        and (mean = a.mean or abs(mean - a.mean) > 1e-140) then
        delta := mean - a.mean;
        a.m2 := a.m2 + m2;
        if delta <> 0 then
            a.m2 := a.m2 + (delta * count / (a.count + count)) * (delta * a.count);
            a.mean := a.mean + delta * count / (a.count + count);
        end if;
    else
        exact := mean::text::numeric - a.mean::text::numeric;
        a.m2 := clamped_double(a.m2::text::numeric + m2::text::numeric + exact * exact * count * a.count / (a.count + count));
        a.mean := clamped_double(a.mean::text::numeric + exact * count / (a.count + count));
    end if;
    a.count := a.count + count;
    if min < a.min or (min = 0 and a.min = 0 and atan2(min, -1) < 0) then
        a.min := min;
    end if;
    if max > a.max or (max = 0 and a.max = 0 and atan2(max, -1) > 0) then
        a.max := max;
    end if;
    if a.mean < a.min or a.mean > a.max then
        a.mean := least(greatest(a.mean, a.min), a.max);
    end if;
    if first_ts < a.first_ts then
        a.first := first;
        a.first_ts := first_ts;
    end if;
    if last_ts >= a.last_ts then
        a.last := last;
        a.last_ts := last_ts;
    end if;
    return a;
end
$$;

create function combine_partials(a rollup_partial, b rollup_partial) returns rollup_partial
    language sql immutable parallel safe as $$
    select combine_step(a, b.count, b.mean, b.m2, b.min, b.max, b.first, b.last, b.first_ts, b.last_ts)
$$;

-- (combine(count, mean, m2, min, max, first, last, first_ts, last_ts)).mean: over any rows of any rollup table, in any
-- order and grouping; as a window function too.
create aggregate combine(
    count bigint, mean double precision, m2 double precision, min double precision, max double precision,
    first double precision, last double precision, first_ts timestamptz, last_ts timestamptz
) (sfunc = combine_step, stype = rollup_partial, combinefunc = combine_partials, parallel = safe);

select create_rollup_table('rollups_1h', interval '30 days');
select create_rollup_table('rollups_1d', interval '360 days');
comment on table rollups_1h is 'One row a series and hour that is over; the view hours has the running ones too.';
comment on table rollups_1d is 'One row a series and day, in the site''s time zone, that is over; the view days has the running ones too.';
comment on column rollups_1d.bucket is 'When the day began where the device is: 23 or 25 hours before the next where clocks change.';
comment on column rollups_1h.revision is 'Late readings in it that revised a minute.';
comment on column rollups_1d.revision is 'Late readings in it that revised a minute.';

create table series (
    device_id  text        not null,
    metric     text        not null,
    first_seen timestamptz not null,
    last_seen  timestamptz not null,
    primary key (device_id, metric)
) with (fillfactor = 80);
comment on table series is 'Every series there is. refresh_rollups() keeps it.';
comment on column series.first_seen is 'Event time of the earliest reading.';
comment on column series.last_seen is 'Event time of the latest, or up to ten minutes earlier: a row is not written each minute.';

create table hour_changes (
    id        bigint      generated always as identity primary key,
    hour      timestamptz not null,
    device_id text,
    metric    text,
    first_bucket timestamptz not null,
    last_bucket  timestamptz not null,
    at        timestamptz not null default now(),
    seen      boolean     not null default false
);
create index on hour_changes (hour);
comment on table hour_changes is 'Hours whose minutes changed since rollups_1h was computed; device_id null: any series.';
comment on column hour_changes.seen is 'Whether series knows of it.';

create table day_changes (
    id        bigint      generated always as identity primary key,
    timezone  text        not null,
    day       date        not null,
    device_id text,
    metric    text,
    at        timestamptz not null default now()
);
create index on day_changes (day);
comment on table day_changes is 'Days whose hours changed since rollups_1d was computed; device_id null: any series of the zone.';

create function timezone_of(device text) returns text language sql stable parallel safe as $$
    select coalesce((select timezone from devices where device_id = device), 'UTC')
$$;

create function day_start(day date, zone text) returns timestamptz language sql immutable parallel safe as $$
    select day::timestamp at time zone zone
$$;

create function hour_at_or_after(instant timestamptz) returns timestamptz language sql immutable parallel safe as $$
    select date_bin('1 hour', instant + interval '59 minutes 59.999999 seconds', 'epoch')
$$;

-- Until when every partition of the log has closed its minutes; null where nothing was written yet.
create function minutes_closed_until() returns timestamptz language sql stable as $$
    select min(closed_until) from progress where output = 'rollups_1m'
$$;

-- An hour or day is computed once it is over and closed, or where the log stands still, when nothing changed it for a while.
create function is_due(ends timestamptz, changed_at timestamptz) returns boolean language sql stable as $$
    select coalesce(ends <= minutes_closed_until(), false)
        or (ends <= now() and changed_at < now() - interval '10 minutes')
$$;

-- Whoever computes holds this until the end of its transaction.
create function refresh_lock() returns bigint language sql immutable as 'select 7235421932'; -- an arbitrary number

create function note_series(notes bigint[]) returns void language plpgsql as $$
begin
    insert into series as known (device_id, metric, first_seen, last_seen)
    select r.device_id, r.metric, min(r.first_ts), max(r.last_ts)
    from (select distinct first_bucket, last_bucket, device_id, metric from hour_changes where id = any (notes)) as c
    join rollups_1m as r on r.bucket between c.first_bucket and c.last_bucket
        and (c.device_id is null or (r.device_id, r.metric) = (c.device_id, c.metric))
    group by 1, 2 order by 1, 2
    on conflict (device_id, metric) do update
    set first_seen = least(known.first_seen, excluded.first_seen), last_seen = greatest(known.last_seen, excluded.last_seen)
    where excluded.last_seen > known.last_seen + interval '10 minutes' or excluded.first_seen < known.first_seen;
end
$$;

-- The rows of an hour, of one series or of all.
create function compute_hour(the_hour timestamptz, device text default null, of_metric text default null) returns void
    language plpgsql as $$
begin
    perform make_partitions('rollups_1h', array[the_hour]);
    execute format($query$
        insert into rollups_1h as h
        select %1$L::timestamptz, device_id, metric, (p).*, revision from (
            select device_id, metric, sum(revision)::int as revision,
                combine(count, mean, m2, min, max, first, last, first_ts, last_ts) as p
            from rollups_1m
            where bucket >= %1$L::timestamptz and bucket < %1$L::timestamptz + interval '1 hour' %2$s
            group by 1, 2
        ) as computed
        on conflict (device_id, metric, bucket) do update
        set (count, mean, m2, min, max, first, last, first_ts, last_ts, revision)
            = row (excluded.count, excluded.mean, excluded.m2, excluded.min, excluded.max, excluded.first, excluded.last,
                excluded.first_ts, excluded.last_ts, excluded.revision)
        where h is distinct from excluded
    $query$, the_hour, case when device is not null
        then format('and device_id = %L and metric = %L', device, of_metric) else '' end);
    insert into day_changes (timezone, day, device_id, metric)
    select distinct zone, (instant at time zone zone)::date, device, of_metric
    from (select timezone_of(device) where device is not null
        union select coalesce(timezone, 'UTC') from devices where device is null
        union select 'UTC' where device is null) as zones (zone),
        unnest(array[the_hour, the_hour + interval '1 hour' - interval '1 microsecond']) as instant;
end
$$;

-- The rows of a day, of one series or of all in the zone: whole hours, and minutes where its ends lie within an hour.
create function compute_day(zone text, the_day date, device text default null, of_metric text default null) returns void
    language plpgsql as $$
declare
    begins timestamptz := day_start(the_day, zone);
    ends timestamptz := day_start(the_day + 1, zone);
    first_hour timestamptz := hour_at_or_after(begins);
    last_hour timestamptz := date_bin('1 hour', ends, 'epoch');
    which text;
begin
    if begins < coalesce((select max(expired_until) from time_tables where name in ('rollups_1h', 'rollups_1d')), begins)
        or (begins < first_hour or last_hour < ends)
            and begins < coalesce((select expired_until from time_tables where name = 'rollups_1m'), begins)
    then
        return; -- what it would be made of is not there any more
    end if;
    which := case when device is not null then format('device_id = %L and metric = %L', device, of_metric)
        when zone = 'UTC' then
            $where$not exists (select from devices d where d.device_id = r.device_id and d.timezone <> 'UTC')$where$
        else format('device_id in (select device_id from devices where timezone = %L)', zone) end;
    perform make_partitions('rollups_1d', array[begins]);
    execute format($query$
        insert into rollups_1d as d
        select %1$L::timestamptz, device_id, metric, (p).*, revision from (
            select device_id, metric, sum(revision)::int as revision,
                combine(count, mean, m2, min, max, first, last, first_ts, last_ts) as p
            from (
                select * from rollups_1h as r where bucket >= %3$L and bucket < %4$L and %2$s
                union all
                select * from rollups_1m as r where bucket >= %1$L and bucket < %3$L and %2$s
                union all
                select * from rollups_1m as r where bucket >= %4$L and bucket < %5$L and %2$s
            ) as parts
            group by 1, 2
        ) as computed
        on conflict (device_id, metric, bucket) do update
        set (count, mean, m2, min, max, first, last, first_ts, last_ts, revision)
            = row (excluded.count, excluded.mean, excluded.m2, excluded.min, excluded.max, excluded.first, excluded.last,
                excluded.first_ts, excluded.last_ts, excluded.revision)
        where d is distinct from excluded
    $query$, begins, which, first_hour, last_hour, ends);
end
$$;

-- Compute hours and days that are due, each call a bounded part: four hours and two days of all series, and units_max of
-- one series. Answers with how many they were: 0 says that nothing is left, or that another is at it. Call it at READ
-- COMMITTED, a transaction each, until it says 0. Notes are read before what they name is computed: no note goes unseen.
create function refresh_rollups(units_max int default 1000) returns int language plpgsql as $$
declare
    unit record;
    unseen bigint[];
    done int := 0;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'refresh_rollups() needs READ COMMITTED: with an older snapshot it would write what is stale';
    end if;
    if not pg_try_advisory_xact_lock(refresh_lock()) then
        return 0;
    end if;
    delete from hour_changes where hour < (select expired_until from time_tables where name = 'rollups_1m');
    select array_agg(id) into unseen from hour_changes where not seen;
    perform note_series(unseen);
    update hour_changes set seen = true where id = any (unseen);
    for unit in
        select hour, array_agg(id) as ids from hour_changes
        group by hour having bool_or(device_id is null) and is_due(hour + interval '1 hour', max(at)) order by hour limit 4
    loop
        perform compute_hour(unit.hour);
        delete from hour_changes where id = any (unit.ids);
        done := done + 1;
    end loop;
    for unit in
        select hour, c.device_id, c.metric, array_agg(id) as ids from hour_changes as c
        where c.device_id is not null
            and not exists (select from hour_changes as w where w.hour = c.hour and w.device_id is null)
        group by 1, 2, 3 order by 1, 2, 3 limit units_max
    loop
        perform compute_hour(unit.hour, unit.device_id, unit.metric);
        delete from hour_changes where id = any (unit.ids);
        done := done + 1;
    end loop;
    return done + refresh_days(units_max);
end
$$;

create function refresh_days(units_max int) returns int language plpgsql as $$
declare
    unit record;
    done int := 0;
begin
    for unit in
        select timezone, day, array_agg(id) as ids from day_changes
        group by 1, 2 having bool_or(device_id is null) and is_due(day_start(day + 1, timezone), max(at))
        order by 2, 1 limit 2
    loop
        perform compute_day(unit.timezone, unit.day);
        delete from day_changes where id = any (unit.ids);
        done := done + 1;
    end loop;
    for unit in
        select timezone, day, c.device_id, c.metric, array_agg(id) as ids from day_changes as c
        where c.device_id is not null and not exists (
            select from day_changes as w where (w.timezone, w.day) = (c.timezone, c.day) and w.device_id is null)
        group by 1, 2, 3, 4 having is_due(day_start(day + 1, timezone), max(at)) order by 2, 1, 3, 4 limit units_max
    loop
        if unit.timezone = timezone_of(unit.device_id) then -- else it has moved, and its days are noted for its new zone
            perform compute_day(unit.timezone, unit.day, unit.device_id, unit.metric);
        end if;
        delete from day_changes where id = any (unit.ids);
        done := done + 1;
    end loop;
    return done;
end
$$;

-- A device whose time zone changes has other days: the old ones go, the new ones are noted.
create function move_days() returns trigger language plpgsql security definer as $$
declare
    device text := case when tg_op = 'DELETE' then old.device_id else new.device_id end;
    before text := case when tg_op = 'INSERT' then 'UTC' else coalesce(old.timezone, 'UTC') end;
    after text := case when tg_op = 'DELETE' then 'UTC' else coalesce(new.timezone, 'UTC') end;
begin
    if before <> after then
        perform pg_advisory_xact_lock(refresh_lock());
        insert into day_changes (timezone, day, device_id, metric)
        select distinct after, (instant at time zone after)::date, device_id, metric
        from rollups_1h, unnest(array[bucket, bucket + interval '1 hour' - interval '1 microsecond']) as instant
        where device_id = device;
        delete from rollups_1d where device_id = device;
    end if;
    return null;
end
$$;
do $$
begin -- it acts as its owner, since who says where a device stands may not delete days; 0003 says why the path
    execute format('alter function move_days() set search_path = %I, public, pg_temp', current_schema);
end
$$;
create trigger move_days after insert or delete or update of timezone on devices for each row execute function move_days();

-- The same as ./justw maintain, as a job of TimescaleDB's (add_job): a transaction a part.
create procedure maintain_job(job_id int, config jsonb) language plpgsql as $$
declare
    one text;
begin
    while refresh_rollups() > 0 loop
        commit;
    end loop;
    for one in select name from time_tables order by name loop
        perform expire_partitions(one);
        commit;
    end loop;
end
$$;

-- Let TimescaleDB maintain itself each minute, where it has jobs; answers with whether it does.
create function keep_job() returns boolean language plpgsql as $$
begin
    if store_edition() <> 'timescale' then
        return false;
    end if;
    if not exists (select from timescaledb_information.jobs where proc_name = 'maintain_job' and proc_schema = current_schema) then
        execute format('select add_job(%L::regproc, interval ''1 minute'')', current_schema || '.maintain_job');
    end if;
    return true;
exception when feature_not_supported then
    return false;
end
$$;
