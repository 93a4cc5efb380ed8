"""Asked to stop with its servers there, every dataflow drains, commits and ends with 0: alone, and under ``run``."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.demo.doorstep import subscribe_ahead
from infra.verify.__main__ import check
from tests.stopping_records import READINGS, RULES, give
from tests.topology import ROOT, Topology, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract, pytest.mark.long]

FLOWS = ("ingest", "minute_rollups", "raw_archive", "anomaly_flags")
STOP_SECS_MAX = 10.0  # promised are 2 on a machine that does nothing else; what takes 9.5 ends with another status


@pytest.fixture
def flows(tmp_path: Path, kafka_bootstrap: str, database_url: str, mqtt_url: str):  # type: ignore[no-untyped-def]
    (tmp_path / "rules.yaml").write_text(RULES)
    own = {"alert_client_id": tmp_path.name}
    with topology(tmp_path, kafka_bootstrap, database_url, mqtt_url, flags=own) as made:
        subscribe_ahead(made.settings.mqtt)
        yield made


def accounted(flows: Topology, times: int) -> None:
    """Wait until the archive and the flags have all that they were given so many times, and rollups what ingest got."""
    every = times * READINGS
    wanted = {"minute_rollups": 2 * every, "raw_archive": 2 * every, "anomaly_flags": every}

    def done() -> bool:
        rows = flows.ask("select flow, sum(messages + refused) from ledger group by 1")
        return {flow: count for flow, count in rows if count >= wanted.get(flow, 0)}.keys() == wanted.keys()

    wait_for(done, "all is accounted for", flows.state)


def supervised(flows: Topology, flow: str) -> None:
    """Start a flow as ``./justw run FLOW --processes 2`` does."""
    command = [sys.executable, "-m", "infra.supervise", flow, "--settings", str(flows.settings_path)]
    with flows.log(f"supervised {flow}").open("ab") as log:
        flows.running[flow] = subprocess.Popen(
            [*command, "--processes", "2"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )


def test_each_drains_and_ends_with_0(flows: Topology) -> None:
    """Stopped while they work, the next start goes on where they were. (Of ingest and rollups: test_supervise.py.)"""
    for times, several in ((1, ()), (2, ("raw_archive", "anomaly_flags"))):
        for flow in FLOWS:
            supervised(flows, flow) if flow in several else flows.start(flow)
        for flow in ("ingest", "minute_rollups", "anomaly_flags"):  # the archive reads what rollups reads
            give(flows.settings, flow)
        accounted(flows, times)
        give(flows.settings, "ingest")
        for process in flows.running.values():
            process.terminate()
        statuses = {flow: process.wait(STOP_SECS_MAX) for flow, process in flows.running.items()}
        assert statuses == dict.fromkeys(FLOWS, 0), logs(flows)
        flows.running.clear()
        assert [] == list(check(flows.settings))
        assert "Traceback" not in logs(flows)


def logs(flows: Topology) -> str:
    return "\n".join(path.read_text() for path in sorted(flows.folder.glob("*.log")))
