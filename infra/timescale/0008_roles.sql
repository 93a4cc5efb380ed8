-- Who may do what. Three roles:
--     the owner         whoever runs ./justw migrate: owns tables and functions, changes and drops them; nobody else need be it
--     ionwax_writer     dataflows: reads, inserts, updates; deletes only what is settled or outdated state; changes no table
--     ionwax_reader     people, dashboards, verify: reads
-- Give them to users of your own: create role ingest login password '…' in role ionwax_writer.
--
-- Roles belong to the whole server, and a managed one may not let this user make them. Then this says so once, and all else
-- of the migration holds; when an administrator has made them, call it again: select grant_roles().

create function grant_roles(writer text default 'ionwax_writer', reader text default 'ionwax_reader')
    returns boolean language plpgsql as $$
declare
    own name := quote_ident(current_schema);
    here regclass;
    role text;
begin
    foreach role in array array[writer, reader] loop
        continue when exists (select from pg_roles where rolname = role);
        begin
            execute format('create role %I nologin', role);
        exception
            when duplicate_object or unique_violation then
                null; -- another database of this server migrates at the same time
            when insufficient_privilege then
                raise notice 'roles are not set up: this user may not create them. Let an administrator run: create role % nologin; create role % nologin; then run: select grant_roles()', writer, reader;
                return false;
        end;
    end loop;

    execute format('grant usage on schema %s to %I, %I', own, writer, reader);
    for here in
        select oid from pg_class
        where relnamespace = current_schema::regnamespace and relkind in ('r', 'p', 'v', 'm')
            and pg_get_userbyid(relowner) = current_user
            and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype = 'e')
    loop
        execute format('grant select on %s to %I, %I', here, writer, reader);
        continue when here in ('schema_migrations'::regclass, 'time_tables'::regclass);
        execute format('grant insert, update on %s to %I', here, writer);
    end loop;
    execute format('grant delete on late_waiting, flag_states to %I', writer);
    if to_regclass('redriven') is not null then -- of a later migration, where this is called again after it
        execute format('grant delete on redriven to %I', writer);
    end if;

    -- What later migrations make, and the partitions that are made while a dataflow runs.
    execute format('alter default privileges in schema %s grant select on tables to %I, %I', own, writer, reader);
    execute format('alter default privileges in schema %s grant insert, update on tables to %I', own, writer);
    execute format('alter default privileges in schema %s grant usage on sequences to %I', own, writer);
    return true;
end
$$;
comment on function grant_roles is
    'Makes the roles of writers and readers where they are missing, and grants them what they need; false where it may not.';
revoke execute on function grant_roles(text, text) from public;

select grant_roles();
