"""Asked to stop while a server is away, a dataflow ends soon, with a status that says so, and nothing is half-written.

All cases run side by side: each flow has names, a database and wires to its servers of its own. What a case breaks is
broken while the flow has something to write; afterwards it is mended, the flow starts again, and all is there once.
"""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from connectors.stopping import EXIT_AWAY, EXIT_STUCK
from infra.chaos.relay import Relay, Wire
from infra.chaos.servers import wires
from infra.verify.__main__ import check
from schemas.telemetry_pb2 import Telemetry
from tests.databases import fresh_database
from tests.stopping_records import READINGS, RULES, begin, give, give_one
from tests.topology import Topology, beside, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract, pytest.mark.long]

STOP_SECS_MAX = 30.0  # promised are 10, on a machine that does nothing else

Metrics = dict[str, float]


class Case(NamedTuple):
    """Which server of which flow is broken how, and what shows that the flow has something to write all the same."""

    flow: str
    server: str
    how: Callable[[Wire, bool], None]
    statuses: tuple[int, ...]
    busy: Callable[[Metrics], bool] = lambda _: True
    publishes: bool = True  # else all that it has to write is progress


def outstanding(metrics: Metrics) -> bool:
    return metrics.get("ionwax_mqtt_pubacks_outstanding", 0) >= READINGS


def waiting(metrics: Metrics) -> bool:
    return metrics.get("ionwax_waiting_seconds", 0) > 0


def uncommitted(metrics: Metrics) -> bool:
    return metrics.get("ionwax_log_uncommitted_records", 0) > 0


def sealing(metrics: Metrics) -> bool:
    """Its epoch does not end: the commit waits for an answer."""
    return metrics.get("ionwax_epoch_age_seconds", 0) > 2


CASES = {
    "ingest, Kafka away": Case("ingest", "kafka", Wire.refuse, (EXIT_AWAY,), outstanding),
    "ingest, Kafka frozen": Case("ingest", "kafka", Wire.stall, (EXIT_AWAY, EXIT_STUCK), outstanding),
    "ingest, broker away": Case("ingest", "mqtt", Wire.refuse, (EXIT_AWAY,), waiting),
    "ingest, broker frozen": Case("ingest", "mqtt", Wire.stall, (EXIT_AWAY, EXIT_STUCK)),
    "rollups, too few replicas": Case("minute_rollups", "kafka", Wire.stall_writes, (EXIT_AWAY,), waiting),
    "rollups, Kafka away": Case("minute_rollups", "kafka", Wire.refuse, (EXIT_AWAY,), waiting),
    "rollups, Kafka away, nothing to publish": Case(
        "minute_rollups",
        "kafka",
        Wire.refuse,
        (EXIT_AWAY,),
        lambda metrics: waiting(metrics) and uncommitted(metrics),
        publishes=False,
    ),
    "rollups, database away": Case("minute_rollups", "database", Wire.refuse, (EXIT_AWAY,), waiting),
    "rollups, database frozen": Case("minute_rollups", "database", Wire.stall, (EXIT_AWAY, EXIT_STUCK), sealing),
    "archive, Kafka away": Case("raw_archive", "kafka", Wire.refuse, (EXIT_AWAY,), waiting),
    "archive, database away": Case("raw_archive", "database", Wire.refuse, (EXIT_AWAY,), waiting),
    "flags, too few replicas": Case("anomaly_flags", "kafka", Wire.stall_writes, (EXIT_AWAY,), waiting),
    "flags, Kafka away": Case("anomaly_flags", "kafka", Wire.refuse, (EXIT_AWAY,), waiting),
    "flags, database away": Case("anomaly_flags", "database", Wire.refuse, (EXIT_AWAY,), waiting),
    "flags, alerts' broker away": Case("anomaly_flags", "mqtt", Wire.refuse, (EXIT_AWAY,), waiting),
}


@dataclass
class Stopped:
    """A case, acted out: what its flow ended with, and when after the request."""

    case: Case
    flows: Topology
    through: Topology
    wires: dict[str, Wire]
    status: int | None = None
    secs: float = 0.0
    failed: AssertionError | None = None

    def metrics(self) -> Metrics:
        """Values by name, of the one worker; the greatest of several."""
        self.through.check()
        log = self.through.log("before").read_text()
        with urllib.request.urlopen(f"{log.split(' on ')[1].split()[0]}/metrics", timeout=30) as answer:
            samples = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#"]
        found: Metrics = {}
        for name, value in samples:
            found[name.partition("{")[0]] = max(found.get(name.partition("{")[0], 0.0), float(value))
        return found

    def await_ready(self, name: str) -> None:
        def ready() -> bool:
            self.through.check()
            said = self.through.log(name).read_text()
            if " on " not in said:
                return False
            try:
                with urllib.request.urlopen(f"{said.split(' on ')[1].split()[0]}/ready", timeout=30) as answer:
                    return bool(json.loads(answer.read())["ready"])
            except OSError:
                return False

        wait_for(ready, f"{self.case.flow} is ready", lambda: self.through.log(name).read_text())

    def await_working(self) -> None:
        """Of flags, which read their state back between the claim and the first record."""
        if self.case.flow == "anomaly_flags":
            begin(self.flows.settings)
            accounted = "select count(*) from ledger where ticks > 0"
            wait_for(lambda: self.flows.ask(accounted) == [(1,)], "flags work", self.through.log("before").read_text)

    def act(self) -> None:
        """Break the server, give the flow something to write, wait until it has it, and ask it to stop."""
        wire = self.wires[self.case.server]
        if not self.case.publishes:
            self.leave_uncommitted()
        if self.case.flow == "ingest" and self.case.server == "mqtt":
            give(self.flows.settings, self.case.flow)
            self.case.how(wire, True)
        else:
            self.case.how(wire, True)
            if self.case.publishes:
                give(self.flows.settings, self.case.flow)
        wait_for(
            lambda: self.case.busy(self.metrics()), "there is something to write", self.through.log("before").read_text
        )
        process = self.through.running.pop("before")
        asked = time.monotonic()
        process.terminate()
        try:
            self.status = process.wait(STOP_SECS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.secs = time.monotonic() - asked
        self.case.how(wire, False)

    def leave_uncommitted(self) -> None:
        """Of rollups, whose first commit comes at once: it looks what an earlier process left waiting."""
        said = self.through.log("before").read_text
        give_one(self.flows.settings)
        accounted = "select count(*) from ledger where messages > 0"
        wait_for(lambda: self.flows.ask(accounted) == [(1,)], "the first is committed", said)
        give_one(self.flows.settings)
        wait_for(lambda: uncommitted(self.metrics()), "the second was read", said)

    def go_on(self) -> None:
        """Start the flow again, its servers mended, and wait until all is written."""
        try:
            if not self.case.publishes:
                give(self.flows.settings, self.case.flow)
            self.through.start(self.case.flow, name="after")
            self.await_ready("after")  # what was to be written may stand there already
            wait_for(self.all_is_written, "all is written", self.through.log("after").read_text)
            assert self.through.stop("after") == 0
        except AssertionError as error:
            self.failed = error  # for the test of this case

    def all_is_written(self) -> bool:
        self.through.check()
        if self.case.flow == "ingest":
            return len(self.readings()) >= READINGS
        ((done,),) = self.flows.ask("select coalesce(sum(messages + refused), 0) from ledger")
        return bool(done >= READINGS)

    def readings(self) -> list[float]:
        """What the log holds, in its order."""
        records = self.flows.records(self.flows.settings.kafka.events_topic)
        return [Telemetry.FromString(one.value()).metrics["n"] for one in records if one.key() is not None]


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, admin_url: str, mqtt_url: str
) -> Iterator[dict[str, Stopped]]:
    """Every case, acted out."""
    with ExitStack() as at_end:
        relay = at_end.enter_context(Relay())
        made: dict[str, Stopped] = {}
        for name, case in CASES.items():
            database = at_end.enter_context(fresh_database(admin_url))
            folder = tmp_path_factory.mktemp("stopping")
            (folder / "rules.yaml").write_text(RULES)
            own = {"alert_client_id": folder.name}
            every = {} if case.publishes else {"progress_every_secs": 600}
            flows = at_end.enter_context(topology(folder, kafka_bootstrap, database, mqtt_url, flags=own, flow=every))
            made[name] = Stopped(case, flows, *through(relay, flows, at_end))
        for one in made.values():
            one.through.start(one.case.flow, name="before")
        for one in made.values():
            one.await_ready("before")
        for one in made.values():
            one.await_working()
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(Stopped.act, made.values()))
            list(pool.map(Stopped.go_on, made.values()))
        yield made


def through(relay: Relay, flows: Topology, at_end: ExitStack) -> tuple[Topology, dict[str, Wire]]:
    """The same topology, which reaches its servers by wires that can be cut."""
    settings = flows.settings
    addresses = {
        "mqtt": settings.mqtt.url, "kafka": settings.kafka.bootstrap_servers, "database": settings.database.conninfo,
    }  # fmt: skip
    cut, seen = wires(relay, addresses)
    sections: dict[str, Any] = {
        "mqtt": {"url": seen["mqtt"]},
        "kafka": {"bootstrap_servers": seen["kafka"]},
        "database": {"conninfo": seen["database"]},
    }
    return at_end.enter_context(beside(flows, "through.yaml", **sections)), cut


@pytest.mark.parametrize("name", CASES)
def test_a_flow_ends_soon_and_says_that_a_server_is_away(stopped: dict[str, Stopped], name: str) -> None:
    """By itself, with a status that a supervisor takes for worth another start, and one message."""
    one = stopped[name]
    said = one.through.log("before").read_text()
    assert one.status in one.case.statuses, f"after {one.secs:.1f} s: {said}"
    assert said.count("ionwax: ") == (one.status != 0), said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_half_written(stopped: dict[str, Stopped], name: str) -> None:
    """The next start writes the rest: all of it, and none twice."""
    one = stopped[name]
    assert one.failed is None, one.failed
    if one.case.flow == "ingest":
        assert sorted(one.readings()) == list(range(READINGS))
    elif one.case.flow == "minute_rollups":
        assert [] == list(check(one.flows.settings, deep=True))
    else:
        half = READINGS // 2
        table = "anomaly_flags" if one.case.flow == "anomaly_flags" else "raw_telemetry"
        assert one.flows.ask("select sum(messages), sum(refused) from ledger") == [(half, half)]
        assert one.flows.ask(f"select count(*) from {table}") == [(half,)]
