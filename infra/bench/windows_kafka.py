"""From Kafka to rows: `minute_rollups` as it runs in production, and an idiomatic Bytewax flow of single messages.

Ours is measured from the moment every partition is claimed to the commit that accounts for the last record, with
rollups and progress committed to PostgreSQL; the other writes its rows nowhere. Both answers are checked.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
import yaml

from infra.bench.case import Result, memory_mib
from infra.bench.kafka_log import fill
from infra.bench.windows_logs import METRICS, Fleet
from infra.embedded.kafka import KafkaBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.unprivileged import account_if_root, temporary_directory
from infra.migrations import migrate
from schemas.settings import Settings
from schemas.settings_file import OVERRIDES, load

ROOT: Final = Path(__file__).parents[2]
ASK_SECS: Final = 0.05
RUN_SECS_MAX: Final = 600
TICKS_A_SEC: Final = os.sysconf("SC_CLK_TCK")


class Servers(NamedTuple):
    folder: Path
    conninfo: str
    settings: Settings
    settings_path: Path


@contextmanager
def servers() -> Iterator[Servers]:
    """An Apache Kafka and a PostgreSQL of their own, and settings that name them."""
    folder = temporary_directory(account_if_root())
    kafka, postgres = KafkaBroker(folder / "kafka"), PostgresServer(folder / "postgres")
    try:
        kafka.start()
        postgres.start()
        path = folder / "bench.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "mqtt": {"client_id": "ingest", "clients": 1},
                    "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "partitions": 4},
                    "database": {"conninfo": postgres.conninfo},
                    "windows": {"buffer_rows_max": 200_000_000},
                }
            )
        )
        migrate(postgres.conninfo)
        yield Servers(folder, postgres.conninfo, load(path, {}), path)
    finally:
        postgres.stop()
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)


def ours(messages: int, devices: int, processes: int, minutes: int = 5) -> Result:
    """``minute_rollups`` in so many independent processes, each with its share of four partitions."""
    with servers() as given:
        records = fill(given.settings, Fleet(devices * len(METRICS), messages * len(METRICS), minutes))
        running = [_start(given, f"{i}/{processes}") for i in range(processes)]
        try:
            with psycopg.connect(given.conninfo, autocommit=True) as connection:
                _wait(connection, running, "select count(*) from progress", given.settings.kafka.partitions)
                began, cpu = time.perf_counter(), sum(map(_cpu_secs, running))
                _wait(connection, running, "select coalesce(sum(position - start), 0)::bigint from progress", records)
                wall, cpu = time.perf_counter() - began, sum(map(_cpu_secs, running)) - cpu
                peak = max(memory_mib("VmHWM", str(process.pid)) for process in running)
                (counted,) = connection.execute("select sum(count)::bigint from rollups_1m").fetchone() or (0,)
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(30)
        assert counted == messages * len(METRICS), f"{counted} readings of {messages * len(METRICS)} in their rows"
    note = f"{messages / wall / 1e6:.2f} M messages/s, {cpu / messages * 1e6:.2f} CPU s a million messages"
    return Result(counted, wall, cpu, peak, note)


def _start(given: Servers, share: str) -> subprocess.Popen[bytes]:
    target = f"dataflows.minute_rollups:flow('{given.settings_path}', '{share}')"
    with (given.folder / f"{share.replace('/', '-of-')}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bytewax.run", target, "-s", "1"],
            cwd=ROOT,
            stdout=log,
            stderr=sys.stderr,
            env={name: value for name, value in os.environ.items() if name not in OVERRIDES}
            | {"POLARS_MAX_THREADS": "1"},
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


def idiomatic(messages: int, devices: int, minutes: int = 5) -> Result:
    """Bytewax's own ``KafkaSource``, protobuf, and ``fold_window`` with a key a series, in one process."""
    from infra.bench.windows_idiomatic import measure

    with servers() as given:
        fill(given.settings, Fleet(devices * len(METRICS), messages * len(METRICS), minutes))
        return measure(given.settings.kafka.bootstrap_servers, given.settings.kafka.events_topic, messages)
