"""The fast check: the ledger's equations, against progress, the table, the late readings and the log's own offsets.

    position − start = messages + ticks + refused + gaps + forfeited
    readings         = counted + late + duplicates + late_duplicates + open + lost
    per partition    forfeited and lost are the sums of its forfeits
    per day          sum(count) of the table = counted + late of ledger_days, all partitions together
    per partition    sum over its days = counted, late of its ledger; its late readings are as many as late says

Days that retention dropped are expired, not missing: of them only the ledger is left, and no rows are asked for.

Everything of the database is read in one snapshot; the log is asked afterwards, so it can only be ahead.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import sql

from connectors.checkpoint import Log
from connectors.timescale_connection import Connection
from infra.verify.finding import Finding
from schemas.progress import Anchor, Counts

_PARTITIONS = """
    select partition, start, position, resume, topic_id, anchor_offset, anchor_timestamp, anchor_checksum,
           messages, ledger.ticks, refused, gaps, readings, counted, late, duplicates, late_duplicates, open,
           array[forfeited, lost],
           (select array[coalesce(sum(f.offsets), 0)::bigint, coalesce(sum(f.lost), 0)::bigint] from forfeits f
            where (f.flow, f.topic, f.partition) = (progress.flow, progress.topic, progress.partition))
    from progress join ledger using (flow, topic, partition)
    where flow = %s and topic = %s order by partition
"""
DAYS = "select partition, day, counted, late from ledger_days where flow = %s and topic = %s order by day, partition"
_LATE = """
    select partition, count(*) from late_readings
    where flow = %s and event_time >= coalesce(%s::date, '-infinity') at time zone 'utc' group by partition
"""
_EXPIRED = "select name, (expired_until at time zone 'utc')::date from time_tables where expired_until is not null"
_DECIDED_UNTIL = """
    select coalesce(ceil(extract(epoch from max(at)) * 1000), 0)::bigint from forfeits
    where flow = %s and topic = %s and (offsets, lost) <> (0, 0)
"""
_TABLE = """
    select (bucket at time zone 'utc')::date, sum(count)::bigint, sum(revision)::bigint from {}
    where bucket >= coalesce(%s::date, '-infinity') at time zone 'utc' group by 1
"""
_BY_DEVICE = "select device_id, sum(count)::bigint from {} where (bucket at time zone 'utc')::date = %s group by 1"


@dataclass(frozen=True, slots=True)
class Account:
    """One partition, as the database has it."""

    partition: int
    start: int
    position: int
    resume: int
    topic_id: str
    anchor: Anchor | None
    counts: Counts
    given_up: tuple[int, int] = (0, 0)  # offsets, readings, by the ledger
    decided: tuple[int, int] = (0, 0)  # the same, by the decisions in forfeits


@dataclass(frozen=True, slots=True)
class Day:
    """One day of windows: readings in the table's rows, and in the ledger by partition (counted, late)."""

    day: date
    in_rows: int
    revisions: int
    ledger: Mapping[int, tuple[int, int]]
    expired: bool = False

    @property
    def in_ledger(self) -> int:
        return sum(counted + late for counted, late in self.ledger.values())


@dataclass(frozen=True, slots=True)
class Books:
    """All that the database says of one flow, at one instant."""

    accounts: Sequence[Account]
    days: Sequence[Day]
    late_rows: Mapping[int, int]
    by_device: Mapping[date, Mapping[str, int]]  # of days whose sums differ
    late_from: date | None = None  # the first day whose late readings have not expired
    rows_from: date | None = None  # the first day whose rows have not


def read_books(connection: Connection, flow: str, topic: str, name: str) -> Books:
    """Read the books of a flow that fills the table ``name``."""
    accounts, table = read_accounts(connection, flow, topic), sql.Identifier(name)
    first_days: dict[str, date] = dict(connection.execute(_EXPIRED).fetchall())
    first, late_from = first_days.get(name), first_days.get("late_readings")
    ledger: dict[date, dict[int, tuple[int, int]]] = defaultdict(dict)
    for partition, day, counted, late in connection.execute(DAYS, [flow, topic]):
        ledger[day][partition] = (counted, late)
    found = connection.execute(sql.SQL(_TABLE).format(table), [first])
    rows = {day: (count, revisions) for day, count, revisions in found}
    days = [
        Day(day, *rows.get(day, (0, 0)), ledger.get(day, {}), first is not None and day < first)
        for day in sorted(rows.keys() | ledger.keys())
    ]
    by_device: dict[date, dict[str, int]] = {
        day.day: dict(connection.execute(sql.SQL(_BY_DEVICE).format(table), [day.day]).fetchall())
        for day in days
        if day.in_rows != day.in_ledger and not day.expired
    }
    late_rows = dict(connection.execute(_LATE, [flow, late_from]).fetchall())
    return Books(accounts, days, late_rows, by_device, late_from, first)


def decided_until(connection: Connection, flow: str, topic: str) -> int:
    """When the flow last went on by ``./justw forfeit`` with another position, or without what was open (ms)."""
    row = connection.execute(_DECIDED_UNTIL, [flow, topic]).fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0])


def read_accounts(connection: Connection, flow: str, topic: str) -> list[Account]:
    """Progress and ledger of a flow, by partition."""
    return [_account(row) for row in connection.execute(_PARTITIONS, [flow, topic])]


def _account(row: Sequence[Any]) -> Account:
    partition, start, position, resume, topic_id, offset, timestamp, checksum, *counts, given_up, decided = row
    anchor = None if offset is None else Anchor(offset, timestamp, checksum)
    return Account(
        partition, start, position, resume, topic_id, anchor, Counts(*counts), tuple(given_up), tuple(decided)
    )


def check_books(books: Books) -> Iterator[Finding]:
    """What the database says against itself."""
    for account in books.accounts:
        yield from check_account(account, books)
    for day in books.days:
        if day.expired:
            continue
        if day.in_rows != day.in_ledger:
            yield from _locate(day, books)
        late = sum(late for _, late in day.ledger.values())
        if day.revisions != late:
            yield Finding(f"rows were revised {day.revisions} times, the ledger has {late} late readings", day=day.day)


def check_account(account: Account, books: Books) -> Iterator[Finding]:
    partition, counts = account.partition, account.counts
    covered = account.position - account.start
    forfeited, lost = account.given_up
    if counts.offsets + forfeited != covered:
        yield Finding(
            f"{covered} offsets were passed, the ledger explains {counts.offsets + forfeited}",
            partition,
            None,
            account.start,
            account.position - 1,
        )
    if counts.unexplained != lost:
        explained = counts.readings - counts.unexplained + lost
        yield Finding(f"{counts.readings} readings came in, the ledger explains {explained}", partition)
    if account.given_up != account.decided:
        words = "the ledger has {} offsets and {} readings given up, forfeits {} and {}"
        yield Finding(words.format(*account.given_up, *account.decided), partition)
    for name, said in (("counted", counts.counted), ("late", counts.late)):
        index = ("counted", "late").index(name)
        by_day = sum(day.ledger.get(partition, (0, 0))[index] for day in books.days)
        if by_day != said:
            yield Finding(f"the ledger has {said} {name}, its days have {by_day}", partition)
    kept, late_from = books.late_rows.get(partition, 0), books.late_from or date.min
    expired = sum(day.ledger.get(partition, (0, 0))[1] for day in books.days if day.day < late_from)
    if kept != counts.late - expired:
        yield Finding(f"the ledger has {counts.late - expired} late, late_readings holds {kept}", partition)


def _locate(day: Day, books: Books) -> Iterator[Finding]:
    """Narrow a day's difference down to partitions, by where Java's partitioner puts each device."""
    partitions = len(books.accounts)
    found: dict[int, int] = defaultdict(int)
    for device_id, count in books.by_device.get(day.day, {}).items():
        found[murmur2(device_id.encode()) % partitions] += count
    words = "rows hold {} readings, the ledger has {}"
    different = [
        Finding(words.format(found.get(partition, 0), sum(said)), partition, day.day)
        for partition in sorted(found.keys() | day.ledger.keys())
        if found.get(partition, 0) != sum(said := day.ledger.get(partition, (0, 0)))
    ]
    yield from different or [Finding(words.format(day.in_rows, day.in_ledger), day=day.day)]


def check_log(books: Books, log: Log) -> Iterator[Finding]:
    """What the database says against the log's identity and offsets."""
    identity = log.identity()
    for account in books.accounts:
        partition = account.partition
        low, high = log.bounds(partition)
        if account.topic_id != identity:
            yield Finding(f"the topic is another one now (id {identity}, was {account.topic_id})", partition)
            continue
        if high < account.position:
            yield Finding("the log ends before what is accounted for", partition, None, high, account.position - 1)
        if low > account.resume:
            words = "retention deleted records that an open window needs"
            yield Finding(words, partition, None, account.resume, low - 1)
        anchor = account.anchor
        if anchor is not None and low <= anchor.offset < high and log.anchor(partition, anchor.offset) != anchor:
            words = "the last record accounted for is another one in the log"
            yield Finding(words, partition, None, anchor.offset, anchor.offset)


def murmur2(data: bytes) -> int:
    """Java's ``Utils.murmur2``, made positive as its default partitioner does (KAFKA ``BuiltInPartitioner``)."""
    m, whole = 0x5BD1E995, len(data) & ~3
    h = 0x9747B28C ^ len(data)
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ ((k ^ (k >> 24)) * m & 0xFFFFFFFF)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & 0xFFFFFFFF
    h = (h ^ (h >> 13)) * m & 0xFFFFFFFF
    return (h ^ (h >> 15)) & 0x7FFFFFFF
