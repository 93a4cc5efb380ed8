"""Rollup rows into PostgreSQL: ``RollupWriter`` in its transaction, beside a bare COPY BINARY of the same rows.

Both write into an empty ``rollups_1m`` whose partition is there, a transaction a minute; the first, in which libraries
are loaded, is not measured. The bare one has its rows as Python tuples already and only copies them. Ours takes the
core's frame, moves a progress row, counts days, notes hours, makes and drops the record of each rollup.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import psycopg

from connectors.timescale import TimescaleStore
from connectors.timescale_rollups import RollupWriter
from connectors.timescale_rows import sql_columns
from infra.bench.case import timed
from infra.bench.delivery_mqtt import METRICS, Run
from infra.embedded.postgres import PostgresServer
from infra.migrations import migrate
from schemas.aggregates import ROLLUPS
from schemas.frames import LATE
from schemas.log import Outcome
from schemas.progress import Counts, Progress
from schemas.record import Record
from schemas.settings import DatabaseSettings

OURS, BARE = "`RollupWriter`", "bare COPY BINARY"
DEVICES: Final = 5_000
MINUTES: Final = 11
BEGIN_MS: Final = 1_763_700_000_000 // 86_400_000 * 86_400_000
MINUTE_MS: Final = 60_000
_BARE: Final = "copy rollups_1m ({}) from stdin (format binary)"
_PARTITION: Final = "select make_partitions('rollups_1m', array[to_timestamp(%s)])"


class _Nowhere:
    """A publisher that drops what it is given."""

    def send_all(self, records: Sequence[Record]) -> None: ...
    def flush(self) -> None: ...


def written(kind: str, folder: Path) -> Run:
    """``DEVICES`` × four metrics × ``MINUTES`` rows."""
    server = PostgresServer(folder / f"postgres-{time.time_ns()}")
    server.start()
    try:
        migrate(server.conninfo)
        frames = list(_frames())
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(_PARTITION, [BEGIN_MS // 1000])
        seconds = _ours(server.conninfo, frames) if kind == OURS else _bare(server.conninfo, frames)
        with psycopg.connect(server.conninfo) as connection:
            (count,) = connection.execute("select count(*) from rollups_1m").fetchone() or (0,)
    finally:
        server.stop()
        server.erase()
    assert count == sum(map(len, frames)), f"{count} rows in the table"
    return Run(count - len(frames[0]), *seconds)


def _ours(conninfo: str, frames: Sequence[pl.DataFrame]) -> tuple[float, float]:
    store = TimescaleStore(DatabaseSettings(conninfo=conninfo), "bench", output="rollups_1m", shape="windows of 60 s")
    claim = store.claim("raw.events", "topic", 1, {0: 0})[0]
    writer = RollupWriter(claim, "rollups_1m", "aggregates.minute", MINUTE_MS, _Nowhere(), _no_letter)
    before = claim.progress

    def seal(rollups: pl.DataFrame) -> None:
        nonlocal before
        number, readings = before.position + 1, int(rollups["count"].sum())
        after = Progress(position=number, resume=number, start=0)
        counts = Counts(messages=1, readings=readings, counted=readings)
        outcome = Outcome(0, rollups, LATE.to_frame(), [], [], counts, after)
        store.seal(claim, before, after, lambda transaction: writer.write(transaction, [outcome], counts))
        before = after

    seal(frames[0])
    with timed() as clock:
        for rollups in frames[1:]:
            seal(rollups)
    store.close()
    return clock.wall_secs, clock.cpu_secs


def _no_letter(*_refused: object) -> Record:
    raise AssertionError("nothing is refused here")


def _bare(conninfo: str, frames: Sequence[pl.DataFrame]) -> tuple[float, float]:
    columns = sql_columns()
    sent_as = {"timestamptz": "int8", "double precision": "float8", "bigint": "int8", "int": "int4", "integer": "int4"}
    types = [sent_as.get(kind, kind) for _, kind in columns]
    rows = [list(_tuples(frame, columns)) for frame in frames]
    with psycopg.connect(conninfo) as connection:
        copy = _BARE.format(", ".join(f'"{name}"' for name, _ in columns)).encode()

        def write(some: Sequence[tuple[Any, ...]]) -> None:
            with connection.cursor() as cursor, cursor.copy(copy) as copying:
                copying.set_types(types)
                for row in some:
                    copying.write_row(row)
            connection.commit()

        write(rows[0])
        with timed() as clock:
            for some in rows[1:]:
                write(some)
    return clock.wall_secs, clock.cpu_secs


def _tuples(frame: pl.DataFrame, columns: Sequence[tuple[str, str]]) -> Iterator[tuple[Any, ...]]:
    epoch_2000_ms = 946_684_800_000
    sent = frame.with_columns(
        pl.lit(0).alias("revision"),
        *((pl.col(name) - epoch_2000_ms) * 1000 for name, kind in columns if kind == "timestamptz"),
    )
    return sent.select(name for name, _ in columns).iter_rows()


def _frames() -> Iterator[pl.DataFrame]:
    """A frame a minute, in the core's order."""
    chance = np.random.default_rng(1)
    count = DEVICES * len(METRICS)
    devices = np.repeat([f"device-{n:07d}" for n in range(DEVICES)], len(METRICS))
    for minute in range(MINUTES):
        bucket = BEGIN_MS + minute * MINUTE_MS
        value = chance.normal(20, 5, count)
        columns = dict.fromkeys(ROLLUPS.names(), value) | {
            "bucket": np.full(count, bucket),
            "device_id": devices,
            "metric": np.tile(METRICS, DEVICES),
            "count": np.full(count, 6),
            "first_ts": np.full(count, bucket + 1),
            "last_ts": np.full(count, bucket + 59_000),
        }
        yield pl.DataFrame(columns).cast(dict(ROLLUPS)).select(ROLLUPS.names())
