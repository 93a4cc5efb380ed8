"""Chaos ends as an undisturbed run does, whatever is broken; and it does not where the protocol is."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from confluent_kafka import KafkaException
from hypothesis import settings as examples

from connectors import kafka_client
from infra.chaos.flows import ROOT
from infra.chaos.relay import Relay
from infra.chaos.run import Outcome, Run
from infra.chaos.schedule import ALL, ESSENTIAL, FLAGS, FLOWS, SERVERS, WORDS, Act, acts_on, schedule
from infra.chaos.servers import Servers, wires
from infra.embedded.kafka import KafkaBroker
from infra.embedded.mqtt import MqttBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.server import Server
from schemas.settings import KafkaSettings
from tests.infra.chaos_mutants import MUTANTS
from tests.topology import wait_for

SEED = 2
FOR_SECS = 18.0
CLIENTS = 2
LINES_MAX = 60  # of a log that a person reads after four outages


@pytest.fixture
def servers(request: pytest.FixtureRequest, kafka_bootstrap: str, admin_url: str, mqtt_url: str) -> Servers:
    """The session's servers; the embedded ones may be killed."""
    addresses = {"mqtt": mqtt_url, "kafka": kafka_bootstrap, "database": admin_url}
    if request.config.getoption("--real"):
        return Servers(addresses)
    ours: dict[str, Server] = {
        "mqtt": request.getfixturevalue("mqtt_broker"),
        "kafka": request.getfixturevalue("kafka"),
        "database": request.getfixturevalue("postgres"),
    }
    assert isinstance(ours["kafka"], KafkaBroker)
    assert isinstance(ours["database"], PostgresServer)
    assert isinstance(ours["mqtt"], MqttBroker)

    def restart(name: str) -> None:
        ours[name].kill()
        ours[name].start()

    return Servers(addresses, {name: lambda name=name: restart(name) for name in ours})  # type: ignore[misc]


def test_a_seed_reproduces_its_schedule() -> None:
    """To the tenth of a second; another seed has another."""
    assert schedule(7, 600.0) == schedule(7, 600.0)
    assert schedule(7, 600.0) != schedule(8, 600.0)
    assert schedule(7, 60.0) == schedule(7, 600.0)[: len(schedule(7, 60.0))]


@pytest.mark.parametrize("seed", range(20))
def test_every_schedule_breaks_everything(seed: int) -> None:
    """What matters most within a minute, all there is within five, one thing at a time, and nothing after the end."""
    acts = schedule(seed, 300.0)
    assert {kind for kind, _ in ESSENTIAL} <= {act.kind for act in acts if act.at_secs < 70}
    assert {(act.kind, act.target) for act in acts} >= set(acts_on(FLOWS))
    assert all(one.at_secs + one.secs < other.at_secs for one, other in pairwise(acts))
    assert acts[-1].at_secs + acts[-1].secs <= 300.0
    assert {kind for kind, _ in acts_on(FLOWS)} == set(WORDS)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as made:
        yield made


@pytest.mark.embedded
@pytest.mark.contract
@pytest.mark.long
def test_kafka_clients_stay_on_the_wire(relay: Relay, servers: Servers) -> None:
    """The brokers that the cluster tells of are on it, too, so what it refuses is refused."""
    made, seen = wires(relay, servers.addresses)
    admin = kafka_client.admin(KafkaSettings(bootstrap_servers=seen["kafka"]))
    brokers = admin.list_topics(timeout=30).brokers
    assert brokers
    assert all(broker.host == "127.0.0.1" for broker in brokers.values())
    assert str(next(iter(brokers.values())).port) not in servers.addresses["kafka"]
    made["kafka"].refuse(True)
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=1)
    made["kafka"].refuse(False)
    assert admin.list_topics(timeout=30).brokers


@pytest.mark.embedded
@pytest.mark.contract
@pytest.mark.long
def test_outages_need_no_hand(servers: Servers, tmp_path: Path) -> None:
    """Each server away for a while, then all at once: no process ends by it, and each says what it waited for."""
    acts = [Act(8.0 * n, "refuse", target, 4.0) for n, target in enumerate((*SERVERS, ALL), 1)]
    outcome = Run(servers, tmp_path).run(acts, 44.0)
    assert outcome.findings == []
    assert outcome.ends == {name: Counter({0: 1}) for name in FLOWS}
    assert all(after < before + 128 for before, _, after in outcome.resident_mb.values()), outcome.resident_mb
    said = {name: (tmp_path / f"{name}.log").read_text() for name in FLOWS}
    assert len(re.findall(r"MQTT broker .* is back after \d+\.\d s", said["ingest"])) >= 2 * CLIENTS
    assert len(re.findall(r"database is back after \d+\.\d s", said["minute_rollups"])) >= 1
    assert all(re.search(r"Kafka at .*; trying again", words) for words in said.values())
    assert all(len(words.splitlines()) < LINES_MAX for words in said.values()), said


@pytest.mark.embedded
@pytest.mark.contract
@pytest.mark.long
def test_supervised_processes_and_flags_end_as_undisturbed_ones_do(servers: Servers, tmp_path: Path) -> None:
    """By ./justw run, two processes a flow: killed behind its back, one frozen, each supervisor killed once."""
    targets = (ALL, FLAGS, ALL, ALL)  # each third kill of a flow is that of its supervisor
    acts = [Act(6.0 * n, "kill", target, 1.0) for n, target in enumerate(targets, 1)]
    run = Run(servers, tmp_path, names=(*FLOWS, FLAGS), supervised="shares")
    outcome = run.run([*acts, Act(30.0, "freeze", FLAGS, 2.0)], 34.0)
    assert outcome.findings == []
    assert outcome.done == {"kill": len(targets), "freeze": 1}
    assert outcome.alerts > 0


@pytest.mark.embedded
@pytest.mark.contract
@pytest.mark.long
@pytest.mark.parametrize("how", [(), ("--supervised", "shares")], ids=["alone", "supervised"])
def test_killed_itself_chaos_leaves_nothing_running(servers: Servers, how: tuple[str, ...]) -> None:
    """Kill -9 of it: whatever it had started ends, the frozen and the supervised ones, too."""
    given = [word for name, address in servers.addresses.items() for word in (f"--{name}", address)]
    command = [sys.executable, "-m", "infra.chaos", "--minutes", "2", "--seed", str(SEED), *given, *how]
    chaos = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(dataflows(chaos.pid)) >= len(FLOWS), "its dataflows run")
        left = [psutil.Process(chaos.pid), *psutil.Process(chaos.pid).children(recursive=True)]
        dataflows(chaos.pid)[0].suspend()
    finally:
        chaos.kill()
        chaos.wait()
    wait_for(lambda: not any(map(runs, left)), "nothing is left", lambda: [one.cmdline() for one in left if runs(one)])


def dataflows(pid: int) -> list[psutil.Process]:
    """Those that run, and are bound to their parent's life by now: that is done before."""
    return [one for one in psutil.Process(pid).children(recursive=True) if one.cmdline()[1:3] == ["-m", "bytewax.run"]]


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def red(servers: Servers, folder: Path, acts: list[Act], for_secs: float, mutant: str = "") -> Outcome:
    """What a run finds, with dataflows as they are or as ``mutant``."""
    launcher = ("-m", "tests.infra.chaos_mutants", mutant) if mutant else ("-m", "bytewax.run")
    return Run(servers, folder, launcher=launcher).run(acts, for_secs)


@pytest.mark.embedded
@pytest.mark.contract
@pytest.mark.long
def test_whatever_is_broken_the_end_is_that_of_an_undisturbed_run(servers: Servers, tmp_path: Path) -> None:
    """Rows, late readings, ledger and topic, to the byte; another log under the old name is refused."""
    acts = schedule(SEED, FOR_SECS)
    outcome = red(servers, tmp_path, acts, FOR_SECS)
    assert outcome.findings == []
    assert outcome.done.total() + outcome.left == len(acts) >= 3
    assert outcome.done.total() >= 2, "a busy machine may leave some out"
    assert min(outcome.rows, outcome.late, outcome.fenced) > 0


@pytest.mark.thorough
@pytest.mark.embedded
@pytest.mark.skipif(examples().max_examples <= 100, reason="takes --hypothesis-profile=thorough: a minute each")
@pytest.mark.parametrize(
    ("mutant", "seed", "for_secs", "words"),
    [
        ("commit_before_flush", 2, 12.0, "in the topic only undisturbed"),
        ("acknowledge_before_flush", 2, 40.0, "neither in the log nor refused"),
        ("no_fence", 2, 24.0, "row only of the disturbed run"),
        ("no_anchor", 2, 4.0, "other records in the log: the flow went on"),
        ("no_identity", 2, 4.0, "a topic made again: the flow went on"),
    ],
)
def test_a_broken_protocol_is_found(
    servers: Servers, tmp_path: Path, mutant: str, seed: int, for_secs: float, words: str
) -> None:
    """Each rule that exactly-once rests on, left out: a run that stays green would prove nothing."""
    assert mutant in MUTANTS
    outcome = red(servers, tmp_path, schedule(seed, for_secs), for_secs, mutant)
    assert any(words in finding for finding in outcome.findings), outcome.findings
