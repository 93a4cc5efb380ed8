"""`./justw bench store [--minutes 10] [--devices 500]`: what the store bears, as it grows.

Rollup rows go in by the rollups' own writer, ten thousand a transaction: COPY, late readings folded, ledger, progress,
notes for hours and days. At one day of rows, two, four and so on, hours and days are computed and the ten questions of
infra/timescale/queries.sql are asked. In the end rows are compressed, where the database can.

The server is that of DATABASE_URL, in a database of its own that is dropped at the end; with --in-place in the one that
it names, which must be empty and is left filled. Without, the embedded PostgreSQL, which does not wait for disks.
"""

import argparse
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from connectors.timescale import TimescaleStore
from connectors.timescale_rollups import RollupWriter
from infra.bench.store_fill import METRICS, MINUTE_MS, Dropped, Fill
from infra.bench.table import machine
from infra.embedded.postgres import PostgresServer
from infra.embedded.unprivileged import account_if_root, temporary_directory
from infra.migrations import migrate
from infra.queries import read_queries
from schemas.settings import DatabaseSettings

FOLDER: Final = Path(__file__).parents[2] / "bench"
ROWS_A_COMMIT: Final = 10_000
ASKED: Final = 3
ASK_SECS_MAX: Final = 60
DISK_BYTES_MIN: Final = 5 * 2**30
SITES: Final = {
    "berlin": "Europe/Berlin",
    "oslo": "Europe/Oslo",
    "new york": "America/New_York",
    "pune": "Asia/Kolkata",
}

_SITES: Final = """
    insert into devices (device_id, site, timezone)
    select 'device-' || lpad(i::text, 5, '0'), (%(sites)s::text[])[1 + i %% 4], (%(zones)s::text[])[1 + i %% 4]
    from generate_series(0, %(devices)s - 1) as i
"""
_BYTES: Final = """
    select coalesce(sum(pg_table_size(oid)), 0)::bigint, coalesce(sum(pg_indexes_size(oid)), 0)::bigint
    from (select unnest(%s::regclass[]) as oid) as parts
"""
_PARTS: Final = "select inhrelid::regclass from pg_inherits where inhparent = 'rollups_1m'::regclass order by 1"


@dataclass
class Step:
    """What was measured at one size of the table. Of queries the median time, None where one took too long."""

    rows: int
    days: float
    rows_a_sec: float
    refresh_secs: float
    bytes_a_row: float
    index_bytes_a_row: float
    query_ms: dict[str, float | None] = field(default_factory=dict)


@dataclass
class Compressed:
    """Bytes a row, indexes and all, before and after; and how long it took."""

    before: float
    after: float
    secs: float


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./justw bench store", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of filling; computing and asking come on top")
    parser.add_argument("--devices", type=int, default=500, help=f"each with {len(METRICS)} metrics")
    parser.add_argument("--in-place", action="store_true", help="fill the database of DATABASE_URL itself")
    parser.add_argument("--dry", action="store_true", help="print the table, and write no file")
    chosen = parser.parse_args(arguments)
    with _database(chosen.in_place) as conninfo:
        steps, compressed, edition = measure(conninfo, chosen.minutes * 60, chosen.devices)
    text = markdown(steps, compressed, edition, chosen.minutes, chosen.devices)
    print(text)
    if not chosen.dry:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "store.md").write_text(text)
        plain = {"machine": machine(), "edition": edition, "steps": [asdict(step) for step in steps]}
        plain["compressed"] = None if compressed is None else asdict(compressed)
        (FOLDER / "store.json").write_text(json.dumps(plain, indent=1) + "\n")
    return 0


def measure(conninfo: str, secs: float, devices: int) -> tuple[list[Step], Compressed | None, str]:
    """Fill for ``secs``, and look at each doubling."""
    migrate(conninfo)
    fill = Fill(devices, int(time.time() * 1000) // MINUTE_MS * MINUTE_MS, ROWS_A_COMMIT)
    steps: list[Step] = []
    with psycopg.connect(conninfo, autocommit=True) as connection:
        names = {"sites": list(SITES), "zones": list(SITES.values()), "devices": devices}
        connection.execute(_SITES, names)
        edition = _edition(connection)
        store = TimescaleStore(DatabaseSettings(conninfo=conninfo), "minute_rollups", "rollups_1m", "windows of 60 s")
        claim = store.claim("bench", "bench", 1, {0: 0})[0]
        writer = RollupWriter(claim, "rollups_1m", "bench", MINUTE_MS, Dropped(), _no_dead_letter)
        left = secs
        goal = fill.rows_a_day
        while left > 0:
            began_rows, spent = fill.rows, 0.0
            while spent < left and fill.rows < goal:
                before, item = fill.progress, fill.next()
                began = time.perf_counter()
                store.seal(
                    claim,
                    before,
                    item.progress,
                    lambda tx, item=item: writer.write(tx, [item], item.counts),  # type: ignore[misc]
                )
                spent += time.perf_counter() - began
            left -= spent
            goal *= 2
            steps.append(_look(connection, fill, (fill.rows - began_rows) / spent))
            print(_said(steps[-1]), flush=True)
            if shutil.disk_usage(Path.cwd()).free < DISK_BYTES_MIN:
                break
        store.close()
        return steps, _compressed(connection, fill.rows), edition


def _look(connection: psycopg.Connection[Any], fill: Fill, rows_a_sec: float) -> Step:
    began = time.perf_counter()
    while connection.execute("select refresh_rollups()").fetchone() != (0,):
        pass
    refresh_secs = time.perf_counter() - began
    connection.execute("analyze")
    heap, index = _bytes(connection)
    step = Step(fill.rows, fill.days, rows_a_sec, refresh_secs, (heap + index) / fill.rows, index / fill.rows)
    asked = {"device": f"device-{fill.devices // 2:05}", "metric": "temperature", "site": "berlin"}
    for query in read_queries():
        step.query_ms[query.name] = _ask(connection, query.sql, asked)
    return step


def _ask(connection: psycopg.Connection[Any], query: str, asked: dict[str, str]) -> float | None:
    times = []
    with suppress(psycopg.errors.QueryCanceled):
        for _ in range(ASKED):
            with connection.transaction():
                connection.execute(f"set local statement_timeout = '{ASK_SECS_MAX}s'".encode())
                began = time.perf_counter()
                connection.execute(query.encode(), asked).fetchall()
                times.append((time.perf_counter() - began) * 1000)
        return median(times)
    return None


def _bytes(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Of the table and of its indexes."""
    parts = [part for (part,) in connection.execute(_PARTS)]
    ((heap, index),) = connection.execute(_BYTES, [parts])
    return heap, index


def _edition(connection: psycopg.Connection[Any]) -> str:
    ((edition, version),) = connection.execute("select store_edition(), current_setting('server_version')")
    return f"{edition} ({version})"


def _compressed(connection: psycopg.Connection[Any], rows: int) -> Compressed | None:
    """All chunks in the columnstore; None where there is none."""
    if connection.execute("select store_edition()").fetchone() != ("timescale",):
        return None
    size = "select hypertable_size('rollups_1m')"
    connection.execute("update time_tables set columnstore_after = %s where name = 'rollups_1m'", [timedelta(days=7)])
    connection.execute("select keep_columnstore('rollups_1m')")
    ((before,),) = connection.execute(size)
    began = time.perf_counter()
    for (chunk,) in connection.execute("select format('%s', c) from show_chunks('rollups_1m') as c").fetchall():
        connection.execute("call convert_to_columnstore(%s, if_not_columnstore => true)", [chunk])
    ((after,),) = connection.execute(size)
    return Compressed(before / rows, after / rows, time.perf_counter() - began)


@contextmanager
def _database(in_place: bool) -> Iterator[str]:
    """A fresh database at DATABASE_URL, or at an embedded server."""
    if given := os.environ.get("DATABASE_URL"):
        if in_place:
            yield given
            return
        name = sql.Identifier(f"bench_{uuid.uuid4().hex[:12]}")
        with psycopg.connect(given, autocommit=True) as admin:
            admin.execute(sql.SQL("create database {}").format(name))
            try:
                yield make_conninfo(given, dbname=name.as_string().strip('"'))
            finally:
                admin.execute(sql.SQL("drop database {} with (force)").format(name))
        return
    folder = temporary_directory(account_if_root())
    server = PostgresServer(folder / "postgres", say=print)
    try:
        server.start()
        yield server.conninfo
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _no_dead_letter(*_: object) -> Any:
    raise AssertionError("nothing is refused here")


def _said(step: Step) -> str:
    return f"{step.rows / 1e6:.1f} M rows: {step.rows_a_sec / 1e3:.0f} k rows/s"


def markdown(steps: Sequence[Step], compressed: Compressed | None, edition: str, minutes: float, devices: int) -> str:
    """The tables: how it grows, what it answers in which time, what is left after compression."""
    lines = [
        "# `./justw bench store`",
        "",
        f"{machine()}; load {os.getloadavg()[0]:.1f} at the end. Database: {edition}.",
        f"{devices * len(METRICS):,} series, {minutes:g} minutes of filling by the rollups' writer, {ROWS_A_COMMIT:,}",
        "rows a commit, a late reading to each thousand. Rates are of each step alone; hours and days come after it.",
        "",
        "| rows | days | rows/s | bytes a row | of them indexes | hours and days, s |",
        "|---|---|---|---|---|---|",
    ]
    for step in steps:
        cells = (
            f"{step.rows / 1e6:.1f} M",
            f"{step.days:.1f}",
            f"{step.rows_a_sec / 1e3:.0f} k",
            f"{step.bytes_a_row:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} | {step.index_bytes_a_row:.0f} | {step.refresh_secs:.1f} |")
    if compressed is None:
        lines += ["", "This database has no columnstore: rows stay as they are."]
    else:
        words = f"{compressed.before:.0f} bytes a row become {compressed.after:.1f} in {compressed.secs:.0f} s"
        lines += ["", f"In the columnstore {words}: a {compressed.before / compressed.after:.0f}th."]
    lines += ["", f"Milliseconds of each question, the median of {ASKED}:", ""]
    lines.append(f"| | {' | '.join(f'{step.rows / 1e6:.1f} M' for step in steps)} | |")
    lines.append(f"|---|{'---|' * len(steps)}---|")
    for query in read_queries():
        times = [step.query_ms[query.name] for step in steps]
        shown = [f"over {ASK_SECS_MAX} s" if one is None else f"{one:.1f}" for one in times]
        lines.append(f"| {query.name} | {' | '.join(shown)} | {query.question} |")
    return "\n".join(lines) + "\n"
