"""What is written to Kafka arrives once, in order, where Java puts it; or the flush fails. Against Apache Kafka."""

import msgspec
import pytest

from connectors.kafka import KafkaLog
from connectors.kafka_sink import Publisher
from schemas.errors import OperatorError
from schemas.record import Keyed, Record
from schemas.settings import KafkaSettings
from tests.connectors.kafka_place import read

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


def test_a_record_that_cannot_be_written_fails_the_flush(cluster: KafkaSettings, topic: str) -> None:
    """Then nothing is acknowledged; the message says which topic."""
    publisher = Publisher(cluster)
    with pytest.raises(OperatorError, match=r"larger than the topic allows"):
        publisher.send(Record(topic, b"x" * (3 * 1024 * 1024)))

    beyond = Publisher(cluster)
    beyond.send(Record(topic, b"x", partition=99))
    with pytest.raises(OperatorError, match="partition"):
        beyond.flush()


class Waiting(Publisher):
    """A publisher that counts the records it waited for."""

    waits = 0

    def send(self, record: Record) -> None:
        self.waits += 1
        super().send(record)


def test_a_queue_that_is_full_changes_nothing(cluster: KafkaSettings, topic: str) -> None:
    """Records handed over as columns, or one by one, wait for room, and stand in the log in their order, each once."""
    narrow = msgspec.structs.replace(cluster, properties={"queue.buffering.max.messages": 7, "linger.ms": 0})
    values = [b"%d" % i for i in range(100)]
    publisher = Waiting(narrow)
    publisher.send_all(Keyed(topic, 1, [b"device"] * 50, values[:50]))
    publisher.send_all([Record(topic, values[50], headers=(("closed", b"1"),), partition=1)])
    publisher.send_all(Keyed(topic, 1, [b"device"] * 49, values[51:]))
    publisher.flush()
    assert (publisher.sent, publisher.flushed) == (100, 100)
    assert publisher.waits, "the queue was full"

    batches = read(KafkaLog(cluster, topic, "test").reader(1, 0), until=100)
    assert values == [value for batch in batches for value in batch.values]
    assert {row + batch.start: headers for batch in batches for row, headers in batch.headers.items()} == {
        50: (("closed", b"1"),)
    }


def murmur2(data: bytes) -> int:
    """Java's ``Utils.murmur2``, masked to a positive int as its default partitioner does."""
    m, h = 0x5BD1E995, 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ (k >> 24)) * m & 0xFFFFFFFF
        h = h * m & 0xFFFFFFFF ^ k
    for i, byte in reversed(list(enumerate(data[whole:]))):
        h ^= byte << (8 * i)
        if i == 0:
            h = h * m & 0xFFFFFFFF
    h = (h ^ (h >> 13)) * m & 0xFFFFFFFF
    return (h ^ (h >> 15)) & 0x7FFFFFFF


def test_keys_go_where_java_puts_them(cluster: KafkaSettings, topic: str) -> None:
    """Producers in other languages send a device's readings to the same partition."""
    keys = [f"boiler-{i}".encode() for i in range(100)]
    publisher = Publisher(cluster)
    publisher.send_all([Record(topic, key, key=key) for key in keys])
    publisher.flush()
    expected = {p: [key for key in keys if murmur2(key) % 2 == p] for p in (0, 1)}

    log = KafkaLog(cluster, topic, "test")
    for partition, values in expected.items():
        batches = read(log.reader(partition, 0), until=len(values))
        assert values == [value for batch in batches for value in batch.values]
