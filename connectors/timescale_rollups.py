"""What ``minute_rollups`` writes for one partition: rollups, late readings, days of the ledger, and what it publishes.

Guarantee: however a log is cut into transactions, and whatever of them is lost and done again, the same rows stand in
the end, to the bit. A rollup whose key exists (one device in two partitions) is combined with its row, never written
over it.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl

from connectors import timescale_connection
from connectors.checkpoint import Publisher
from connectors.timescale_connection import Connection
from connectors.timescale_edition import edition
from connectors.timescale_hours import MINUTES, note_hours
from connectors.timescale_late import Archive, LateReadings
from connectors.timescale_rows import Key, RollupRows, Row, check_table, sql_columns
from schemas import aggregates
from schemas.aggregates import ROLLUPS, Partial
from schemas.errors import OperatorError
from schemas.log import Outcome, Refused
from schemas.progress import Claim, Counts
from schemas.record import Keyed, Record
from schemas.rollup_pb2 import Rollup
from schemas.rollup_records import encode

log = logging.getLogger("ionwax.timescale")

DAY_MS: Final = 86_400_000
RECORDS_AT_ONCE: Final = 10_000  # that are Python objects: a million would take a gigabyte
CLOSED: Final = "closed"
"""Header of the record that says a window is closed; its value is the window's end, ms, in decimal."""

_DAYS: Final = """
    insert into ledger_days (flow, topic, partition, day, counted, late)
    select %s, %s, %s, date '1970-01-01' + day, counted, late
    from unnest(%s::int[], %s::bigint[], %s::bigint[]) as days (day, counted, late)
    on conflict (flow, topic, partition, day) do update
    set counted = ledger_days.counted + excluded.counted, late = ledger_days.late + excluded.late
"""
_COMBINED: Final = """
    insert into ledger (flow, topic, partition, combined) values (%s, %s, %s, %s)
    on conflict (flow, topic, partition) do update set combined = ledger.combined + excluded.combined
"""


class RollupWriter:
    """Writes the ``Outcome``s of the partition it was made for. Counts: ``combined``, rollups that met a row.

    ``dead_letter`` makes the record of what was refused. Publishes each rollup as a ``Rollup`` record, keyed by
    device, to the partition of ``topic`` with the log partition's number; after a window's rollups its ``closed``
    record; then, whole, the rows that late readings revised. Late readings that wait for ``archive`` count as open.
    """

    def __init__(
        self,
        claim: Claim,
        table: str,
        topic: str,
        length_ms: int,
        publisher: Publisher,
        dead_letter: Callable[[Claim, Refused], Record],
        archive: Archive | None = None,
    ) -> None:
        self._claim = claim
        self._rows = RollupRows(table)
        self._has_hours = table == MINUTES
        self._topic = topic
        self._length_ms = length_ms
        self._publisher = publisher
        self._dead_letter = dead_letter
        self._late = LateReadings(claim, length_ms, archive)

    def has_rows(self, item: Outcome) -> bool:
        waiting = self._late.any_wait and item.counts.offsets
        return bool(item.closed or item.refused or len(item.rollups) or len(item.late) or waiting)

    def write(self, transaction: Connection, items: Sequence[Outcome], counts: Counts) -> Counts:
        """Rollups first: a late reading's window closed before its record, so its row is older or among them."""
        if not items:
            return counts
        rollups = pl.concat([item.rollups for item in items])
        settled = self._late.settle(transaction, pl.concat([item.late for item in items]))
        late = settled.new
        rows = self._insert(transaction, rollups)
        revised = self._rows.revise(transaction, _by_row(late), late=True)
        self._count_days(transaction, rollups, late)
        if self._has_hours:
            note_hours(transaction, rollups, late)
        self._tell(rows, [end for item in items for end in item.closed])
        self._send(_frame(revised.rows))
        self._publisher.send_all([self._dead_letter(self._claim, one) for item in items for one in item.refused])
        return replace(
            counts,
            late=len(late),
            late_duplicates=counts.late_duplicates + settled.decided - len(late),
            open=counts.open + settled.waiting,
        )

    def flush(self) -> None:
        self._publisher.flush()

    def _insert(self, transaction: Connection, rollups: pl.DataFrame) -> pl.DataFrame:
        """Write rollups; answers with the rows as they stand, ascending by bucket."""
        if self._rows.insert(transaction, rollups):
            return rollups.with_columns(pl.lit(0).alias("revision"))
        partials = {Key(row["device_id"], row["metric"], row["bucket"]): [row] for row in rollups.iter_rows(named=True)}
        rows, met = self._rows.revise(transaction, partials, late=False)
        transaction.execute(_COMBINED, [*self._key, met])
        return _frame(rows).sort("bucket", maintain_order=True)

    def _count_days(self, transaction: Connection, rollups: pl.DataFrame, late: pl.DataFrame) -> None:
        counted: Counter[int] = Counter()
        for bucket, count in rollups.group_by("bucket").agg(pl.col("count").sum()).iter_rows():
            counted[bucket // DAY_MS] += count
        came_late = Counter(bucket // DAY_MS for bucket in late["bucket"])
        if days := sorted(counted | came_late):
            arrays = [days, [counted[day] for day in days], [came_late[day] for day in days]]
            transaction.execute(_DAYS, [*self._key, *arrays])

    @property
    def _key(self) -> tuple[str, str, int]:
        return self._claim.flow, self._claim.topic, self._claim.partition

    def _tell(self, rows: pl.DataFrame, ends: Sequence[int]) -> None:
        """Publish rollups, ascending by bucket, and each window's end after the last of its own."""
        told = 0
        closed: list[Record] = []  # of windows without rows: after a long silence they are half a million
        for end, own in zip(ends, np.searchsorted(rows["bucket"].to_numpy(), ends).tolist(), strict=True):
            if own > told:
                self._publisher.send_all(closed)
                self._send(rows[told:own])
                closed, told = [], own
            closed.append(self._closed(end))
        self._publisher.send_all(closed)
        self._send(rows[told:])

    def _send(self, rows: pl.DataFrame) -> None:
        for some in rows.iter_slices(RECORDS_AT_ONCE):
            keys = some["device_id"].cast(pl.Binary()).to_list()
            values = encode(some, self._length_ms)
            self._publisher.send_all(Keyed(self._topic, self._claim.partition, keys, values))

    def _closed(self, end: int) -> Record:
        value = Rollup(bucket=end - self._length_ms, length_ms=self._length_ms).SerializeToString()
        return Record(self._topic, value, headers=((CLOSED, b"%d" % end),), partition=self._claim.partition)


def check_tables(conninfo: str, table: str) -> None:
    """Compare the database with what this version writes. Raises ``OperatorError``; changes nothing."""
    fields, columns = set(Rollup.DESCRIPTOR.fields_by_name), {name for name, _ in sql_columns()} | {"length_ms"}
    if fields != columns:
        raise OperatorError(
            f"schemas/rollup.proto and schemas/aggregates.py differ in {', '.join(sorted(fields ^ columns))}: an "
            "aggregate is an entry in one and a field in the other. Then run ./justw proto."
        )
    with timescale_connection.connect_or_say(conninfo, "ionwax check") as connection:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise OperatorError(
                f"The database is encoded in {encoding}; device ids need UTF8: createdb --encoding=UTF8."
            )
        for name in ("progress", "ledger", "ledger_days", "late_readings", "late_waiting", "hour_changes"):
            if connection.execute("select to_regclass(%s)", [name]).fetchone() == (None,):
                raise OperatorError(f"Table {name} is missing: run ./justw migrate.")
        check_table(connection, table)
        log.info("%s", edition(connection))


def _frame(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=ROLLUPS | {"revision": pl.Int64()}, orient="row")


def _by_row(late: pl.DataFrame) -> dict[Key, list[Partial]]:
    """The rows that late readings belong to, and their partials in the order of the log."""
    partials: dict[Key, list[Partial]] = defaultdict(list)
    columns = late.select("device_id", "metric", "bucket", "event_time", "value")
    for device_id, metric, bucket, event_time, value in columns.iter_rows():
        partials[Key(device_id, metric, bucket)].append(aggregates.partial(event_time, value))
    return partials
