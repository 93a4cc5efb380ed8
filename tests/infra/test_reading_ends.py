"""What reads a topic to its end comes to it, also where the last offsets hold no record."""

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from connectors import kafka_client
from connectors.kafka import KafkaLog
from infra.letters.letter import messages
from infra.verify import reading
from schemas.settings import KafkaSettings, Settings
from tests.connectors.kafka_place import DEADLINE_SECS, make

pytestmark = pytest.mark.embedded


@pytest.fixture
def ended(kafka_bootstrap: str) -> Iterator[tuple[Settings, str]]:
    """A topic of two records and the marker of their transaction, two that were aborted, and the marker of those."""
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=kafka_bootstrap, partitions=1))
    topic, admin = f"t{uuid.uuid4().hex[:12]}", kafka_client.admin(settings.kafka)
    make(admin, topic)
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "transactional.id": topic, "log_level": 2})
    producer.init_transactions(DEADLINE_SECS)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for value in (b"a", b"b"):
            producer.produce(topic, value, partition=0)
        producer.flush(DEADLINE_SECS)
        end(DEADLINE_SECS)
    yield settings, topic
    admin.delete_topics([topic])[topic].result(DEADLINE_SECS)


def test_the_end_of_a_topic_may_be_a_marker(ended: tuple[Settings, str]) -> None:
    """``dead-letters``, ``redrive`` and ``verify`` waited for a record there, and said that Kafka is not well."""
    settings, topic = ended
    low, high = KafkaLog(settings.kafka, topic, reading.GROUP).bounds(0)
    assert (low, high) == (0, 6)
    assert [message.value() for message in messages(settings.kafka, topic)] == [b"a", b"b"]
    assert [record.value for record in reading.records(settings, topic, 0, low, high)] == [b"a", b"b"]
