"""`./justw bench flag_state`: what the state of anomaly_flags costs the database, in bytes of its log (WAL).

One partition, the default rules, minutes of noise; then its state is sealed twice, and once nothing but the position.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import psycopg

from connectors.timescale import TimescaleStore
from connectors.timescale_flags import FlagWriter
from dataflows.anomalies.judge import Judge
from dataflows.anomalies.keeping import snapshot
from dataflows.anomalies.rules import watches
from infra.embedded.postgres import PostgresServer
from infra.embedded.unprivileged import account_if_root, temporary_directory
from infra.migrations import migrate
from schemas import snapshot_bytes
from schemas.flags import TOLD, Judged, Snapshot
from schemas.log import Refused
from schemas.progress import Claim, Counts, Progress
from schemas.record import Record
from schemas.rules import defaults
from schemas.settings import DatabaseSettings, FlagSettings

MINUTE_MS: Final = 60_000
START_MS: Final = 1_763_700_000_000 // MINUTE_MS * MINUTE_MS
OUTPUT: Final = Path(__file__).parents[2] / "bench" / "flag_state.md"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw bench flag_state", description=__doc__)
    parser.add_argument("--series", type=int, default=10_000, metavar="N", help="of the partition (10000)")
    parser.add_argument("--minutes", type=int, default=300, metavar="N", help="that they are watched (300)")
    chosen = parser.parse_args(arguments)
    state = _watched(chosen.series, chosen.minutes)
    began = time.process_time()
    encoded = len(snapshot_bytes.encode(state))
    took = time.process_time() - began
    plain = sum(array.nbytes for array in state.arrays.values())
    folder = temporary_directory(account_if_root())
    server = PostgresServer(folder / "postgres", say=lambda _words: None)
    server.start()
    try:
        with_state, without = _sealed(server.conninfo, state)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    every_secs = FlagSettings().snapshot_every_secs
    table = _table(chosen.series, chosen.minutes, plain, encoded, took, with_state, without, every_secs)
    print(table)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(table)
    return 0


def _watched(series: int, minutes: int) -> Snapshot:
    """The state after so many minutes of noise, four metrics a device."""
    judge = Judge(watches(defaults().values()), MINUTE_MS)
    noise = np.random.default_rng(1)
    level = 10 * noise.normal(size=series)
    names = {
        "device_id": [f"device-{nth // 4}" for nth in range(series)],
        "metric": [f"metric-{nth % 4}" for nth in range(series)],
    }
    for nth in range(minutes):
        value, bucket = level + noise.normal(size=series), START_MS + nth * MINUTE_MS
        row = {"mean": value, "min": value - 1, "max": value + 1, "first": value, "last": value, "m2": value * value}
        whole = {"bucket": bucket, "count": 60, "first_ts": bucket, "last_ts": bucket, "revision": 0, "offset": 0}
        columns = {name: np.full(series, one) for name, one in whole.items()}
        judge.close(pl.DataFrame({**names, **row, **columns}).select(TOLD.names()).cast(dict(TOLD)), bucket + MINUTE_MS)
    return snapshot(judge, 0)


def _sealed(conninfo: str, state: Snapshot) -> tuple[int, int]:
    """WAL of a seal that replaces the state, and of one that moves the position alone."""
    migrate(conninfo)
    store = TimescaleStore(DatabaseSettings(conninfo=conninfo), "anomaly_flags", "anomaly_flags", "bench")
    claim = store.claim("aggregates.minute", "bench", 1, {0: 0})[0]
    writer = FlagWriter(claim, FlagSettings(), MINUTE_MS, _Nowhere(), None, _no_dead_letter)
    with psycopg.connect(conninfo, autocommit=True) as asking:
        asking.execute("checkpoint")
        first, second, third = (replace(claim.progress, position=place) for place in (1, 2, 3))
        _wal(asking, lambda: _seal(store, claim, writer, claim.progress, first, state))
        with_state = _wal(asking, lambda: _seal(store, claim, writer, first, second, state))
        without = _wal(asking, lambda: _seal(store, claim, writer, second, third, None))
    store.close()
    return with_state, without


def _seal(
    store: TimescaleStore, claim: Claim, writer: FlagWriter, before: Progress, after: Progress, state: Snapshot | None
) -> None:
    items = [Judged(0, (), (), (), Counts(messages=1), after, state)] if state else []
    store.seal(claim, before, after, lambda transaction: writer.write(transaction, items, Counts(messages=1)))


def _wal(asking: psycopg.Connection[tuple[object, ...]], work: Callable[[], None]) -> int:
    """Bytes of WAL that ``work`` makes. The server is ours alone."""
    here = "select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint"
    ((before,),) = asking.execute(here).fetchall()
    work()
    ((after,),) = asking.execute(here).fetchall()
    return int(str(after)) - int(str(before))


class _Nowhere:
    def send_all(self, records: Sequence[Record]) -> None:
        assert not records, "nothing is told here"

    def flush(self) -> None:
        """Nothing was sent."""


def _no_dead_letter(_claim: Claim, refused: Refused) -> Record:
    raise AssertionError(refused)


def _table(
    series: int, minutes: int, plain: int, encoded: int, took: float, with_state: int, without: int, every_secs: float
) -> str:
    a_minute = with_state * 60 / every_secs
    rows = (
        ("state in memory", f"{plain / 1e6:.1f} MB, {plain / series:,.0f} bytes a series"),
        ("as kept in flag_states", f"{encoded / 1e6:.1f} MB, in {took:.2f} s of one core"),
        ("WAL of a seal with it", f"{with_state / 1e6:.1f} MB, {with_state / series:,.0f} bytes a series"),
        (
            f"WAL a minute, at one each {every_secs:.0f} s",
            f"{a_minute / 1e6:.2f} MB, {a_minute / series:,.0f} bytes a series",
        ),
        ("WAL of a seal without it", f"{without:,} bytes"),
    )
    lines = [f"| {what} | {how_much} |" for what, how_much in rows]
    head = f"{series:,} series in one partition after {minutes} minutes, default rules: `./justw bench flag_state`"
    return "\n".join([head, "", "| | |", "|---|---|", *lines, ""])
