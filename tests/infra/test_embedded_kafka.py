"""Apache Kafka really starts, keeps what it acknowledged, and leaves nothing behind."""

import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra.embedded.cache import cache_directory
from infra.embedded.jars import verified_jars
from infra.embedded.kafka import _JARS, KafkaBroker
from infra.embedded.ports import LOOPBACK, is_free
from schemas.errors import OperatorError
from tests.infra.test_embedded_child import is_alive

pytestmark = pytest.mark.embedded
SECS_MAX = 60


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker whose path has what breaks class paths and lists of directories."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka") / "a path, with: signs")
    broker.start()
    yield broker
    broker.stop()


def new_topic(broker: KafkaBroker) -> str:
    """A topic of one partition."""
    name = f"t-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(name, num_partitions=1)])[name].result(SECS_MAX)
    return name


def produce(broker: KafkaBroker, topic: str, *values: bytes) -> None:
    """Return when all are acknowledged by all."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all", "compression.type": "zstd"})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(SECS_MAX) == 0


def consume(broker: KafkaBroker, topic: str, count: int) -> list[bytes]:
    """The first records of the topic."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": topic})
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = consumer.consume(count, SECS_MAX)
    consumer.close()
    return [message.value() for message in messages if message.error() is None]


def test_a_kill_is_noticed_and_records_and_address_survive_it(broker: KafkaBroker) -> None:
    """`check` says nothing of a broker that runs; what was acknowledged is there after a start on the same data."""
    topic, address = new_topic(broker), broker.bootstrap_servers
    produce(broker, topic, b"before")
    broker.check()
    broker.kill()
    with pytest.raises(OperatorError, match="Apache Kafka ended by itself"):
        broker.check()
    broker.start()
    assert broker.bootstrap_servers == address
    produce(broker, topic, b"after")
    assert consume(broker, topic, 2) == [b"before", b"after"]


def test_a_stop_leaves_nothing_but_data_on_which_another_object_continues(broker: KafkaBroker) -> None:
    """No process, no port of broker or controller; the directory is all that has to be known."""
    topic = new_topic(broker)
    produce(broker, topic, b"kept")
    pid, port, controller = broker.pid, broker.port, port_of_controller(broker)
    assert not is_free(port)
    assert not is_free(controller)
    broker.stop()
    assert not is_alive(pid)
    assert is_free(port)
    assert is_free(controller)
    again = KafkaBroker(broker.data)
    again.start()
    try:
        assert consume(again, topic, 1) == [b"kept"]
    finally:
        again.stop()
        broker.start()


def test_a_port_that_is_taken_while_it_starts_is_replaced(broker: KafkaBroker) -> None:
    """That of its controller, which no client sees: it starts again with another one, on the same address."""
    address = broker.bootstrap_servers
    broker.kill()
    broker.begin()
    with socket.create_server((LOOPBACK, port_of_controller(broker))) as taken:
        broker.await_ready()
        assert port_of_controller(broker) != taken.getsockname()[1]
    assert broker.bootstrap_servers == address


def port_of_controller(broker: KafkaBroker) -> int:
    found = re.search(r"CONTROLLER://[\d.]+:(\d+)", (broker.data / "server.properties").read_text())
    assert found
    return int(found[1])


def test_what_kafka_refuses_is_said_at_once(tmp_path: Path) -> None:
    """A wrong property ends the start with Kafka's own words, not with a timeout."""
    broker = KafkaBroker(tmp_path, properties={"num.io.threads": "many"})
    with pytest.raises(OperatorError, match=r"(?s)Apache Kafka ended by itself.*num\.io\.threads"):
        broker.start()


def test_a_tampered_jar_is_refused(tmp_path: Path) -> None:
    """Nothing is started."""
    jars = verified_jars(_JARS, cache_directory(), print)
    copy = tmp_path / jars.name
    shutil.copytree(jars, copy)
    with next(copy.glob("kafka-clients-*.jar")).open("r+b") as jar:
        jar.seek(1000)
        jar.write(b"!")
    broker = KafkaBroker(tmp_path / "data", cache=tmp_path)
    with pytest.raises(OperatorError, match=r"kafka-clients-.*has another SHA-256"):
        broker.start()
    assert not broker.running
