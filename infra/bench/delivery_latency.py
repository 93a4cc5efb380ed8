"""From publish to row, and from kill -9 to caught up: both dataflows as in production, a steady fleet, real servers.

Latency is what is added to the least there can be: a window's row cannot be there before its end and the allowed
lateness. So a sample is (when a reader first saw a device's row) − (its window's end + allowed lateness). Windows are
five seconds long here, so that there are many.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import yaml

from connectors import kafka_topics
from connectors.stopping import EXIT_AWAY
from infra.bench.delivery_mqtt import PARTITIONS, ROOT
from infra.embedded.stack import Stack
from infra.migrations import migrate
from schemas.settings_file import OVERRIDES, load

WINDOW_SECS: Final = 5
LATENESS_SECS: Final = 2
TABLE: Final = "rollups_5s"
ASK_SECS: Final = 0.02
WAIT_SECS_MAX: Final = 180.0
FLOWS: Final = ("ingest", "minute_rollups")


@dataclass(frozen=True)
class Measured:
    """Seconds: ``waits`` from what is possible to the row, sorted; ``recoveries`` from kill -9 to caught up."""

    waits: list[float]
    recoveries: list[float]


@dataclass
class Topology:
    conninfo: str
    bootstrap_servers: str
    settings: Path
    mqtt_url: str
    folder: Path
    running: dict[str, subprocess.Popen[bytes]]

    def start(self, flow: str) -> None:
        command = [sys.executable, "-m", "bytewax.run", f"dataflows.{flow}:flow('{self.settings}')", "-s", "1"]
        self.running[flow] = self.spawn(command, f"{flow}.log")

    def tend(self) -> None:
        """Start again what found a server away, as a supervisor does: on a busy machine Kafka may take its time to
        answer. What ended otherwise ends the measurement with its last words."""
        for flow, process in list(self.running.items()):
            if (status := process.poll()) is None:
                continue
            words = (self.folder / f"{flow}.log").read_text(errors="replace").splitlines()[-1:]
            assert status == EXIT_AWAY, f"{flow} ended with {status}: {words}"
            print(f"{flow} is started again: {words}", file=sys.stderr, flush=True)
            self.start(flow)

    def spawn(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=out, env=environment | {"POLARS_MAX_THREADS": "1"}
            )


def measured(rate: int, secs: int, kills: int, folder: Path) -> Measured:
    """A fleet of ``rate`` devices, a message a second each; ``secs`` of latencies, then ``kills`` of both dataflows."""
    with _topology(folder) as topology:
        fleet = topology.spawn(
            [sys.executable, "-m", "infra.load", *_fleet(topology.mqtt_url, rate)],
            "fleet.log",
        )
        try:
            with psycopg.connect(topology.conninfo, autocommit=True) as connection:
                waits = _waits(connection, secs)
                recoveries = [_recovery(topology, connection) for _ in range(kills)]
        finally:
            fleet.terminate()
            fleet.wait(30)
    return Measured(sorted(waits), recoveries)


def _fleet(mqtt_url: str, rate: int) -> list[str]:
    many = ["--users", "1", "--devices-per-user", str(rate), "--rate", str(rate), "--forever"]
    return ["--mqtt", mqtt_url, "--format", "protobuf", *many]


def _waits(connection: psycopg.Connection, secs: int) -> list[float]:
    """How long after it was possible each row was first seen, for ``secs`` after the first rows."""
    newest: dict[str, float] = {}
    waits: list[float] = []
    newest_of_each = (
        f"select device_id, extract(epoch from max(bucket))::float8 from {TABLE} "
        "where bucket > now() - interval '1 min' group by 1"
    )
    until, deadline = float("inf"), time.monotonic() + WAIT_SECS_MAX + secs
    while time.monotonic() < until:
        assert time.monotonic() < deadline, "no rows"
        rows, now = connection.execute(newest_of_each.encode()).fetchall(), time.time()
        for device, bucket in rows:
            if bucket > newest.get(device, 0.0):
                if device in newest:  # the first one may have waited for this reader
                    waits.append(now - (bucket + WINDOW_SECS + LATENESS_SECS))
                newest[device] = bucket
        if rows and until == float("inf"):
            until = time.monotonic() + WINDOW_SECS + secs
        time.sleep(ASK_SECS)
    return waits


def _recovery(topology: Topology, connection: psycopg.Connection) -> float:
    """Kill both dataflows, start them at once, and wait until the newest window that is possible is there again."""
    for process in topology.running.values():
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = time.time()
    for flow in FLOWS:
        topology.start(flow)
    deadline = time.monotonic() + WAIT_SECS_MAX
    newest = f"select coalesce(extract(epoch from max(bucket))::float8, 0) from {TABLE}"
    while True:
        topology.tend()
        (bucket,) = connection.execute(newest.encode()).fetchone() or (0.0,)
        behind = time.time() - (bucket + 2 * WINDOW_SECS + LATENESS_SECS)  # of the window that could be there by now
        if bucket + WINDOW_SECS > killed and behind < 1.0:
            return time.time() - killed
        assert time.monotonic() < deadline, f"not caught up within {WAIT_SECS_MAX:.0f} s"
        time.sleep(ASK_SECS)


@contextmanager
def _topology(folder: Path) -> Iterator[Topology]:
    with ExitStack() as closing:
        stack = closing.enter_context(Stack())
        addresses = stack.environment
        path = folder / "latency.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "mqtt": {"url": addresses["MQTT_URL"], "client_id": "bench"},
                    "kafka": {"bootstrap_servers": addresses["KAFKA_BOOTSTRAP_SERVERS"], "partitions": PARTITIONS},
                    "database": {"conninfo": addresses["DATABASE_URL"]},
                    "windows": {"length_secs": WINDOW_SECS, "allowed_lateness_secs": LATENESS_SECS},
                    "output": {"table": TABLE},
                }
            )
        )
        settings = load(path, {})
        migrate(settings.database.conninfo)
        with psycopg.connect(settings.database.conninfo) as connection:
            connection.execute(f"select create_rollup_table('{TABLE}')".encode())
        kafka_topics.ensure(settings)
        topology = Topology(
            settings.database.conninfo, settings.kafka.bootstrap_servers, path, settings.mqtt.url, folder, {}
        )
        try:
            for flow in FLOWS:
                topology.start(flow)
            yield topology
        finally:
            for process in topology.running.values():
                process.terminate()
            for process in topology.running.values():
                process.wait(30)
