"""`./justw maintain [--every 60s] [--letters]`: what a store needs now and then, as often as one likes.

Retention and columnstore as the settings say; partitions for today and tomorrow; hours and days whose minutes changed;
what is older than it is kept is dropped. On TimescaleDB with jobs, once is enough: the database goes on by itself. With
``--letters`` dead letters are counted, so that the view ``gaps`` knows what was rejected; that asks Kafka, each time.

Guarantee: each part is a transaction of its own that may be run beside any other, killed, or left out; what is not done
is done the next time.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import psycopg
from psycopg import sql

from connectors import timescale_connection, timescale_edition
from connectors.timescale_connection import Connection
from infra.duration import seconds
from infra.letters.noting import note
from infra.settings_option import add_settings_option, chosen_settings
from schemas.errors import OperatorError
from schemas.settings import Settings

ROWS_FEW: Final = ("late_readings", "rejections")  # they are not worth a columnstore
LOCK_SECS: Final = 2  # while a drop waits for those who read a table, those who write it wait behind


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw maintain", description="Partitions, hours and days, retention.")
    add_settings_option(parser)
    parser.add_argument("--every", type=seconds, metavar="TIME", help="again and again: 60s, 10m")
    parser.add_argument("--letters", action="store_true", help="count dead letters too, for the view gaps: asks Kafka")
    chosen = parser.parse_args(arguments)
    settings = chosen_settings(chosen, "DATABASE_URL", *(["KAFKA_BOOTSTRAP_SERVERS"] if chosen.letters else []))
    while True:
        for line in maintain(settings, quiet=False):
            print(line, flush=True)
        if chosen.letters and (counted := note(settings)):
            print(f"rejections: counted {counted} dead letters", flush=True)
        if chosen.every is None:
            return 0
        time.sleep(chosen.every)


def maintain(settings: Settings, quiet: bool = True) -> Iterator[str]:
    """Do all of it; says what was done, and where not ``quiet`` what the database is. Raises ``OperatorError``."""
    with timescale_connection.connect_or_say(settings.database.conninfo, "ionwax maintain") as connection:
        try:
            if not quiet:
                yield timescale_edition.edition(connection)
            keep(connection, settings)
            yield from _some(connection, "made", "partition", _MAKE)
            yield from _refreshed(connection)
            yield from _expired(connection)
            for (name,) in connection.execute(_UNKNOWN).fetchall():
                connection.execute(sql.SQL("analyze {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or error from None


def kept_days(settings: Settings) -> Mapping[str, int | None]:
    """Table → days that its rows are kept; None: for ever."""
    retention = settings.retention
    return {
        settings.output.table: retention.minutes_days,
        "late_readings": retention.minutes_days,
        "rejections": retention.minutes_days,
        settings.archive.table: retention.readings_days,
        settings.flags.table: retention.flags_days,
        "rollups_1h": retention.hours_days,
        "rollups_1d": retention.days_days,
    }


def keep(connection: Connection, settings: Settings) -> None:
    """Bring retention, columnstore and the job to the database, where they are not as the settings say."""
    after = settings.retention.columnstore_after_days
    for table, days in kept_days(settings).items():
        store_after = None if table in ROWS_FEW else after
        wanted = [_days(days), _days(store_after), table]
        with connection.transaction():
            changed = connection.execute(_KEEP, wanted).rowcount
            if changed:
                connection.execute("select keep_columnstore(%s)", [table])
    connection.execute("select keep_job()")


_KEEP: Final = """
    update time_tables as t set keep = w.keep, columnstore_after = w.after
    from (
        select name, case when days is not null then greatest(days, width) end as keep, after
        from time_tables, (select %s::interval, %s::interval) as given (days, after) where name = %s
    ) as w
    where t.name = w.name and (t.keep, t.columnstore_after) is distinct from (w.keep, w.after)
"""  # at least a partition is kept
# Autovacuum looks at partitions only, never at the table they make up.
_UNKNOWN: Final = """
    select name from time_tables join pg_stat_user_tables as s on s.relid = to_regclass(quote_ident(name))
        join pg_class as c on c.oid = s.relid and c.relkind = 'p'
    where coalesce(s.last_analyze < now() - interval '1 day', true) order by name
"""
_MAKE: Final = "select name, make_partitions(name, array[now(), now() + width]) from time_tables order by name"


def _some(connection: Connection, did: str, what: str, query: str) -> Iterator[str]:
    for table, count in connection.execute(query.encode()).fetchall():
        if count:
            yield f"{table}: {did} {count} {what}{'s' * (count > 1)}"


def _refreshed(connection: Connection) -> Iterator[str]:
    done = 0
    while found := connection.execute("select refresh_rollups()").fetchone():
        if not found[0]:
            break
        done += found[0]
    if done:
        yield f"computed {done} hours and days"


def _expired(connection: Connection) -> Iterator[str]:
    for (table,) in connection.execute("select name from time_tables where keep is not null order by name").fetchall():
        try:
            with connection.transaction():
                connection.execute(f"set local lock_timeout = '{LOCK_SECS}s'".encode())
                found = connection.execute("select expire_partitions(%s)", [table]).fetchone()
        except psycopg.errors.LockNotAvailable:
            yield f"{table}: somebody reads it for long; what is expired is dropped the next time"
        else:
            if found and found[0]:
                yield f"{table}: dropped {found[0]} expired"


def _days(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"maintain: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
