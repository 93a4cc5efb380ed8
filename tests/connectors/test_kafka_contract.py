"""Kafka's publisher under the contract of every connector, against a broker that is killed and started again."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from connectors import kafka_client
from connectors.kafka import KafkaLog
from connectors.kafka_sink import Publisher
from infra.embedded.kafka import KafkaBroker
from schemas.errors import OperatorError
from schemas.record import Record
from schemas.settings import KafkaSettings
from tests.connectors.contract import Contract

pytestmark = pytest.mark.embedded

DEADLINE_SECS = 90.0


class Published:
    """A publisher and a topic of one partition. What is safe is what was flushed."""

    exactly_once = False

    def __init__(self, broker: KafkaBroker, settings: KafkaSettings, topic: str) -> None:
        self._broker = broker
        self._settings = settings
        self._topic = topic
        self._publisher = Publisher(settings)

    def carry(self, numbers: Sequence[int]) -> None:
        self._publisher.send_all(self._records(numbers))
        self._publisher.flush()

    def crash(self, numbers: Sequence[int]) -> None:
        self._publisher.send_all(self._records(numbers))
        self._publisher = Publisher(self._settings)  # the first dies with what it had not sent yet
        self.carry(numbers)

    def arrived(self) -> list[int]:
        _, end = KafkaLog(self._settings, self._topic, "test").bounds(0)
        consumer = kafka_client.consumer(self._settings, "test")
        consumer.assign([TopicPartition(self._topic, 0, 0)])
        messages = consumer.consume(end, DEADLINE_SECS) if end else []
        consumer.close()
        assert len(messages) == end
        return [int(message.value() or b"") for message in messages]

    @contextmanager
    def away(self) -> Iterator[None]:
        self._broker.kill()
        yield
        self._broker.start()

    def refused(self) -> str:
        sasl = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "nobody"}
        wrong = KafkaSettings(
            bootstrap_servers=self._settings.bootstrap_servers, properties={**sasl, "sasl.password": "hunter2"}
        )
        with pytest.raises(OperatorError) as refused:
            KafkaLog(wrong, self._topic, "test").partitions()
        assert "hunter2" not in str(refused.value)
        return str(refused.value)

    def _records(self, numbers: Sequence[int]) -> list[Record]:
        return [Record(self._topic, str(number).encode(), partition=0) for number in numbers]


@pytest.fixture
def subject(kafka: KafkaBroker) -> Published:
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    topic = f"test.{uuid.uuid4().hex}"
    admin = kafka_client.admin(settings)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(DEADLINE_SECS)
    return Published(kafka, settings, topic)


class TestKafka(Contract):
    """See ``Contract``."""
