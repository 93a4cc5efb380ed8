"""What a test finds in the tables, in a form that compares to the bit; and a publisher that keeps what it was given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from connectors.timescale import TimescaleStore
from connectors.timescale_rollups import RollupWriter
from infra.migrations import migrate
from schemas.log import Outcome, Refused
from schemas.progress import Claim, Counts
from schemas.record import Record
from schemas.settings import DatabaseSettings
from tests.connectors.outcomes import FIRST_BUCKET, LENGTH_MS, Reading, Step, outcomes

TOPIC = "raw.events"
TABLES = ("rollups_1m", "late_readings", "progress", "ledger", "ledger_days")


class Kept:
    """A publisher into a list; ``durable`` is what had been sent when it was last flushed."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.durable = 0

    def send_all(self, records: Sequence[Record]) -> None:
        self.records += records

    def flush(self) -> None:
        self.durable = len(self.records)


def store(conninfo: str, flow: str = "minute_rollups", **changes: Any) -> TimescaleStore:
    settings = {"output": "rollups_1m", "shape": "windows of 60 s"} | changes
    outage_max_secs = settings.pop("outage_max_secs", 90.0)  # a server that was killed is back long before
    return TimescaleStore(DatabaseSettings(conninfo=conninfo, outage_max_secs=outage_max_secs), flow, **settings)


def claimed(of: TimescaleStore, partition: int = 0, begin: int = 0) -> Claim:
    return of.claim(TOPIC, "topic-1", 4, {partition: begin})[partition]


def dead_letter(claim: Claim, refused: Refused) -> Record:
    where = (("source-partition", b"%d" % claim.partition), ("source-offset", b"%d" % refused.offset))
    return Record("raw.dead_letter", refused.payload, headers=where)


def writer(claim: Claim, publisher: Kept | None = None, table: str = "rollups_1m") -> RollupWriter:
    return RollupWriter(claim, table, "aggregates.minute", LENGTH_MS, publisher or Kept(), dead_letter)


def migrated(conninfo: str, folder: Path | None = None) -> str:
    migrate(conninfo, *([folder] if folder else []))
    return conninfo


def emptied(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        connection.execute(
            "; ".join(f"delete from {table}" for table in TABLES).encode()
        )  # truncate: ten times as long


def rows(conninfo: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query in a stable order; doubles as their hexadecimal form, so that equal means to the bit."""
    with psycopg.connect(conninfo) as connection:
        return _rows(connection, query)


def _rows(connection: psycopg.Connection[tuple[Any, ...]], query: str) -> list[tuple[Any, ...]]:
    found = connection.execute(query.encode()).fetchall()
    return sorted((tuple(v.hex() if isinstance(v, float) else v for v in row) for row in found), key=repr)


def everything(conninfo: str) -> dict[str, list[tuple[Any, ...]]]:
    """What must not depend on cuts and crashes: all tables, without who claimed and when."""
    progress = (
        "select flow, topic, partition, position, resume, start, closed_until, ticks, judged, "
        "anchor_offset, anchor_timestamp, anchor_checksum from progress"
    )
    queries = {table: f"select * from {table}" for table in TABLES} | {"progress": progress}
    with psycopg.connect(conninfo) as connection:
        return {table: _rows(connection, query) for table, query in queries.items()}


def seal(
    of: TimescaleStore, claim: Claim, before: Any, items: Sequence[Outcome], publisher: Kept | None = None
) -> None:
    """One transaction with all of ``items``, as the sink makes it."""
    mine = writer(claim, publisher)
    counts = sum((item.counts for item in items), Counts())
    of.seal(claim, before, items[-1].progress, lambda transaction: mine.write(transaction, items, counts))


def items() -> list[Outcome]:
    """Three windows of one series, each with a reading on time, a late one of the first, and a refusal."""
    made = []
    for i in range(3):
        bucket = FIRST_BUCKET + i * LENGTH_MS
        on_time = (Reading(10 * i, "boiler-7", "temperature", bucket, 21.5, False),)
        late = (Reading(10 * i + 1, "boiler-7", "temperature", FIRST_BUCKET + 1, 22.5, True),)
        made.append(Step(10 * i + 10, bucket, on_time, late, 1))
    return outcomes(made)


def undisturbed(conninfo: str) -> None:
    """Seal ``items``, one by one, with nothing going wrong."""
    of = store(conninfo)
    claim = claimed(of)
    before = claim.progress
    for item in items():
        seal(of, claim, before, [item])
        before = item.progress
    of.close()


def assert_no_secret(conninfo: str, message: str) -> None:
    password = psycopg.conninfo.conninfo_to_dict(conninfo).get("password")
    assert password is None or password not in message
