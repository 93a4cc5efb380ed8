"""Dataflows to which nothing comes but ticks: they commit seldom."""

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from connectors.kafka_sink import Publisher
from dataflows.decoding.ticks import tick_records
from schemas.arrivals import Tick
from tests.topology import DEADLINE_SECS, Topology, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract, pytest.mark.long]

EVERY_SECS = 1.0  # flow.progress_every_secs of these flows
FLOWS = ("minute_rollups", "raw_archive")
ROUNDS = 60


@pytest.fixture
def flows(tmp_path: Path, kafka_bootstrap: str, database_url: str) -> Iterator[Topology]:
    with topology(tmp_path, kafka_bootstrap, database_url, "mqtt://127.0.0.1:1") as made:
        yield made


def commits(flows: Topology, name: str) -> int:
    """Transactions that a process has committed so far, as it shows them itself."""
    (address,) = re.findall(r"metrics and health on (\S+)", flows.log(name).read_text())
    with urllib.request.urlopen(f"{address}/metrics", timeout=DEADLINE_SECS) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return sum(int(s.value) for family in families for s in family.samples if s.name == "ionwax_commits_total")


def test_ticks_alone_are_committed_at_most_once_in_progress_every_secs(flows: Topology) -> None:
    """However many epochs they come in: each partition once in that time, and once at the start."""
    kafka, now_ms = flows.settings.kafka, time.time_ns() // 1_000_000
    assert flows.settings.flow.progress_every_secs == EVERY_SECS
    for name in FLOWS:
        flows.start(name)
    wait_for(lambda: flows.ask("select count(*) from progress") == [(len(FLOWS) * kafka.partitions,)], "all is claimed")
    publisher, began = Publisher(kafka), time.monotonic()
    for _ in range(ROUNDS):
        publisher.send_all([*tick_records(Tick(flows.settings.mqtt.workers[0], now_ms), kafka.events_topic, 3)])
        publisher.flush()
        time.sleep(0.05)  # the pace of what comes, not a wait for something: epochs between are the hazard
    wait_for(
        lambda: flows.ask(f"select bool_and(position = {ROUNDS}) from progress") == [(True,)],
        "all is read",
        flows.state,
    )
    found = {name: commits(flows, name) for name in FLOWS}
    at_most = kafka.partitions * ((time.monotonic() - began) / EVERY_SECS + 1)
    assert all(0 < often <= at_most for often in found.values()), (found, at_most)
    assert {flows.stop(name) for name in FLOWS} == {0}
