"""The raw archive's own ledger against its table, and what it told ``minute_rollups`` of late readings.

    per partition and day    rows of raw_telemetry = counted of ledger_days, expired days left out
    late readings            none that was looked up in the archive has a copy at a lower offset there
    waiting                  not more than the ledger has open

Where the archive never ran there is nothing to check.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from psycopg import sql

from connectors.timescale_connection import Connection
from infra.verify import ledger
from infra.verify.finding import Finding
from infra.verify.ledger import Account, Books, Day
from infra.verify.replay import Told
from schemas.settings import Settings

_ROWS: Final = """
    select (event_time at time zone 'utc')::date, partition, count(*) from {}
    where event_time >= coalesce(%s::timestamptz, '-infinity') group by 1, 2
"""
_EXPIRED: Final = "select expired_until, (expired_until at time zone 'utc')::date from time_tables where name = %s"
_COUNTED_TWICE: Final = """
    select late.partition, late."offset", copy."offset", late.device_id, late.metric
    from late_readings as late join progress on progress.flow = late.flow and progress.partition = late.partition,
        lateral (
            select raw."offset" from {} as raw
            where raw.device_id = late.device_id and raw.metric = late.metric and raw.event_time = late.event_time
                and raw.partition = late.partition and raw."offset" < late."offset" and raw."offset" >= progress.start
                and float8send(raw.value) = float8send(late.value)
            limit 1
        ) as copy
    where late.flow = %s and progress.topic = %s and late.archived_until is not null
    limit 100
"""
_OVERFULL: Final = """
    select partition, open, waiting from ledger join (
        select flow, topic, partition, count(*) as waiting from late_waiting group by 1, 2, 3
    ) as w using (flow, topic, partition) where flow = %s and topic = %s and waiting > open
"""
_EVER: Final = """
    select exists (select from progress where flow = %s and topic = %s)
        or exists (select from late_readings where flow = %s and archived_until is not null)
"""


@dataclass(frozen=True, slots=True)
class Archived:
    """All that the database says of the archive, at one instant; ``rows`` by day and partition."""

    books: Books
    rows: Mapping[tuple[date, int], int]
    twice: list[tuple[int, int, int, str, str]]
    overfull: list[tuple[int, int, int]]


def read_archive(connection: Connection, settings: Settings) -> Archived | None:
    """Read it; None where the archive has no progress."""
    archive, topic, flow = settings.archive, settings.kafka.events_topic, settings.flow.name
    accounts = ledger.read_accounts(connection, archive.name, topic)
    if not accounts:
        return None
    table = sql.Identifier(archive.table)
    expired, first_day = connection.execute(_EXPIRED, [archive.table]).fetchone() or (None, None)
    rows = {
        (day, partition): count for day, partition, count in connection.execute(sql.SQL(_ROWS).format(table), [expired])
    }
    said: dict[date, dict[int, tuple[int, int]]] = defaultdict(dict)
    for partition, day, counted, late in connection.execute(ledger.DAYS, [archive.name, topic]):
        said[day][partition] = (counted, late)
        if first_day is None or day >= first_day:
            rows.setdefault((day, partition), 0)
    days = [Day(day, sum(n for (d, _), n in rows.items() if d == day), 0, said[day]) for day in sorted(said)]
    twice = connection.execute(sql.SQL(_COUNTED_TWICE).format(table), [flow, topic]).fetchall()
    overfull = connection.execute(_OVERFULL, [flow, topic]).fetchall()
    return Archived(Books(accounts, days, {}, {}), rows, twice, overfull)


def check_archive(archived: Archived) -> Iterator[Finding]:
    """What the archive says against itself, and what was made of late readings against it."""
    books = archived.books
    for account in books.accounts:
        yield from ledger.check_account(account, books)
    said = {day.day: day.ledger for day in books.days}
    for (day, partition), found in sorted(archived.rows.items()):
        counted, _ = said.get(day, {}).get(partition, (0, 0))
        if found != counted:
            yield Finding(f"the archive holds {found} readings, the ledger has {counted}", partition, day)
    for partition, offset, copy, device_id, metric in archived.twice:
        words = f"{device_id} {metric} counts as late, but repeats offset {copy}, which the archive had"
        yield Finding(words, partition, None, offset, offset)
    for partition, is_open, waiting in archived.overfull:
        yield Finding(f"the ledger has {is_open} open, but {waiting} late readings wait for the archive", partition)


def rows_of(archived: Archived, account: Account) -> int:
    """Rows of a partition in the archive."""
    return sum(count for (_, partition), count in archived.rows.items() if partition == account.partition)


def told(connection: Connection, settings: Settings) -> Mapping[int, Told] | None:
    """By partition, which late readings were counted and which wait, where an archive ever told copies apart."""
    flow, topic = settings.flow.name, settings.kafka.events_topic
    if connection.execute(_EVER, [settings.archive.name, topic, flow]).fetchone() != (True,):
        return None
    found: dict[int, Told] = defaultdict(lambda: Told(set(), set()))
    counted = 'select partition, "offset", metric from late_readings where flow = %s'
    for partition, offset, metric in connection.execute(counted, [flow]):
        found[partition].counted.add((offset, metric))
    waiting = 'select partition, "offset", metric from late_waiting where (flow, topic) = (%s, %s)'
    for partition, offset, metric in connection.execute(waiting, [flow, topic]):
        found[partition].waiting.add((offset, metric))
    return found
