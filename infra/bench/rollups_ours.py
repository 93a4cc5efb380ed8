"""`minute_rollups` as it runs in production, in one process or several, each with its share of the partitions.

Measured from the moment every partition is claimed to the commit that accounts for the last record, with rollups and
progress in PostgreSQL.
"""

import io
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import polars as pl
import psycopg
import yaml
from psycopg import sql

from infra.bench.case import Result, memory_mib
from infra.bench.rollups_log import Filled
from infra.migrations import migrate
from schemas.settings_file import OVERRIDES

ROOT: Final = Path(__file__).parents[2]
ASK_SECS: Final = 0.05
RUN_SECS_MAX: Final = 900
TICKS_A_SEC: Final = os.sysconf("SC_CLK_TCK")

_ROWS: Final = """
    copy (select (extract(epoch from bucket) * 1000)::bigint as bucket, device_id, metric, count, mean, m2, min, max
          from rollups_1m) to stdout (format csv, header)
"""
_COMMITTED: Final = "select coalesce(sum(position - start), 0)::bigint from progress"


def measure(settings: Path, filled: Filled, processes: int) -> Result:
    """Run until the log's end is committed, and compare every row. Raises AssertionError where one is wrong."""
    with _own_database(settings) as (path, conninfo):
        running = [_start(path, f"{i}/{processes}") for i in range(processes)]
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                partitions = yaml.safe_load(path.read_text())["kafka"]["partitions"]
                _wait(connection, running, "select count(*) from progress", partitions)
                began, cpu = time.perf_counter(), sum(map(_cpu_secs, running))
                _wait(connection, running, _COMMITTED, filled.records)
                wall, cpu = time.perf_counter() - began, sum(map(_cpu_secs, running)) - cpu
                peak = max(memory_mib("VmHWM", str(process.pid)) for process in running)
                wrong = filled.difference(_table(connection))
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(30)
    assert not wrong, f"minute_rollups, {processes} processes: {wrong}"
    return Result(filled.messages * 4, wall, cpu, peak, f"{len(filled.rows):,} rows, all equal")


@contextmanager
def _own_database(settings: Path) -> Iterator[tuple[Path, str]]:
    """The settings with a fresh, migrated database in them; it is dropped at the end."""
    values = yaml.safe_load(settings.read_text())
    admin_url, name = values["database"]["conninfo"], f"bench_{uuid.uuid4().hex[:12]}"
    conninfo = values["database"]["conninfo"] = psycopg.conninfo.make_conninfo(admin_url, dbname=name)
    path = settings.with_name(f"{name}.yaml")
    path.write_text(yaml.safe_dump(values))
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            migrate(conninfo)
            yield path, conninfo
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _start(settings: Path, share: str) -> subprocess.Popen[bytes]:
    target = f"dataflows.minute_rollups:flow('{settings}', '{share}')"
    environment = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
    with settings.with_name(f"{settings.stem}-{share.replace('/', '-of-')}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bytewax.run", target, "-s", "1"],
            cwd=ROOT,
            stdout=log,
            stderr=sys.stderr,
            env=environment | {"POLARS_MAX_THREADS": "1"},
        )


def _wait(connection: psycopg.Connection, running: list[subprocess.Popen[bytes]], query: str, until: int) -> None:
    deadline = time.monotonic() + RUN_SECS_MAX
    while (connection.execute(query.encode()).fetchone() or (0,))[0] < until:
        assert time.monotonic() < deadline, f"not within {RUN_SECS_MAX} s: {query} gives {until}"
        assert all(process.poll() is None for process in running), "a dataflow ended by itself"
        time.sleep(ASK_SECS)


def _cpu_secs(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SEC


def _table(connection: psycopg.Connection) -> pl.DataFrame:
    csv = io.BytesIO()
    with connection.cursor().copy(_ROWS) as rows:
        for part in rows:
            csv.write(part)
    csv.seek(0)
    return pl.read_csv(csv)
