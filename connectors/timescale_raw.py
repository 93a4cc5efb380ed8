"""What ``raw_archive`` writes for one partition: every reading as it came, and days of the ledger.

Guarantee: with the fence of the transaction each reading of the log is there once, with the partition and offset of its
record; repetitions of a reading are rows of their own, as they are records of their own.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import polars as pl
from psycopg import sql

from connectors import timescale_connection
from connectors.timescale_connection import Connection
from connectors.timescale_copy import copy_in
from schemas.errors import OperatorError
from schemas.log import Landing
from schemas.progress import Claim, Counts

DAY_MS: Final = 86_400_000

_DAYS: Final = """
    insert into ledger_days (flow, topic, partition, day, counted)
    select %s, %s, %s, date '1970-01-01' + day, counted from unnest(%s::int[], %s::bigint[]) as days (day, counted)
    on conflict (flow, topic, partition, day) do update set counted = ledger_days.counted + excluded.counted
"""
_COLUMNS: Final = {
    "event_time": "timestamp with time zone",
    "device_id": "text",
    "metric": "text",
    "value": "double precision",
    "partition": "integer",
    "offset": "bigint",
}


class RawWriter:
    """Writes the ``Landing``s of the partition it was made for into ``table``, by COPY BINARY. Publishes nothing."""

    def __init__(self, claim: Claim, table: str) -> None:
        self._claim = claim
        self._copy = sql.SQL("copy {} ({}) from stdin (format binary)").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
        )

    def has_rows(self, item: Landing) -> bool:
        return bool(len(item.readings))

    def write(self, transaction: Connection, items: Sequence[Landing], counts: Counts) -> Counts:
        if items:
            readings = pl.concat([item.readings for item in items])
            self._land(transaction, readings)
            self._count_days(transaction, readings)
        return counts

    def flush(self) -> None:
        """Nothing is published."""

    def _land(self, transaction: Connection, readings: pl.DataFrame) -> None:
        partition = pl.lit(self._claim.partition, pl.Int32()).alias("partition")
        copy_in(transaction, self._copy, readings.with_columns(partition).select(*_COLUMNS), {"event_time"})

    def _count_days(self, transaction: Connection, readings: pl.DataFrame) -> None:
        found = Counter(dict(readings.group_by(pl.col("event_time") // DAY_MS).len().iter_rows()))
        days = sorted(found)
        claim = self._claim
        arrays = [days, [found[day] for day in days]]
        transaction.execute(_DAYS, [claim.flow, claim.topic, claim.partition, *arrays])


def check_raw_table(conninfo: str, flow: str, table: str, topic: str) -> None:
    """Compare the database with what this version writes. Raises ``OperatorError``; changes nothing."""
    with timescale_connection.connect_or_say(conninfo, "ionwax check") as connection:
        found: dict[str, str] = dict(
            connection.execute(
                "select attname, format_type(atttypid, atttypmod) from pg_attribute "
                "where attrelid = to_regclass(quote_ident(%s)) and attnum > 0 and not attisdropped",
                [table],
            ).fetchall()
        )
        if not found:
            raise OperatorError(f"Table {table} is missing: run ./justw migrate.")
        for name, kind in _COLUMNS.items():
            if found.get(name) != kind:
                raise OperatorError(
                    f"Table {table}: column {name} must be {kind}, and is {found.get(name, 'missing')}."
                )
        others = connection.execute(
            "select flow, topic from progress where output = %s and topic <> %s", [table, topic]
        ).fetchone()
        if others is not None:
            raise OperatorError(
                f"Table {table} holds what flow {others[0]} read from topic {others[1]}; partitions and offsets of "
                f"{topic} would mean other records. Give {flow} another archive.name and archive.table."
            )
