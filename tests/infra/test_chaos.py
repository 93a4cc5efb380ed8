"""Chaos ends as an undisturbed run does, whatever is broken; and it does not where the protocol is."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from hypothesis import settings as examples

from connectors import kafka_client
from infra.chaos.relay import Relay
from infra.chaos.run import Outcome, Run
from infra.chaos.schedule import ESSENTIAL, FLOWS, WORDS, Act, acts_on, schedule
from infra.chaos.servers import Servers, wires
from infra.embedded.kafka import KafkaBroker
from infra.embedded.mqtt import MqttBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.server import Server
from schemas.settings import KafkaSettings
from tests.infra.chaos_mutants import MUTANTS

SEED = 2
FOR_SECS = 18.0


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
        ("no_identity", 2, 4.0, "other records in the log: the flow went on"),  # the claim refuses the first, too,
    ],
)
def test_a_broken_protocol_is_found(
    servers: Servers, tmp_path: Path, mutant: str, seed: int, for_secs: float, words: str
) -> None:
    """Each rule that exactly-once rests on, left out: a run that stays green would prove nothing."""
    assert mutant in MUTANTS
    outcome = red(servers, tmp_path, schedule(seed, for_secs), for_secs, mutant)
    assert any(words in finding for finding in outcome.findings), outcome.findings
