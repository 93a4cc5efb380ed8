"""A batch that nobody can decompress is passed over by offset, and holds up neither reader nor ingest's start."""

import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from connectors.kafka import KafkaLog
from connectors.kafka_tail import tail_values
from connectors.kafka_unreadable import UNREADABLE
from dataflows.decoding.log import decode_log
from dataflows.decoding.rollup_log import decode_rollups
from schemas.settings import DecodingSettings, KafkaSettings
from tests.connectors.kafka_place import DEADLINE_SECS, read

pytestmark = pytest.mark.embedded

RECEIVED_BYTES_MAX = 3_000_000  # instead of librdkafka's 100 MB: a bomb need be no larger
ROOM: dict[str, str | int | float | bool] = {
    "receive.message.max.bytes": RECEIVED_BYTES_MAX,
    "fetch.max.bytes": RECEIVED_BYTES_MAX - 1_000,
}
BOMB = {"compression.type": "zstd", "message.max.bytes": 50_000_000, "batch.size": 50_000_000, "linger.ms": 1_000}


def send(cluster: KafkaSettings, topic: str, *values: bytes) -> None:
    """All in one batch of partition 0."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, **BOMB})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert not producer.flush(DEADLINE_SECS)


def test_a_batch_that_cannot_be_decompressed_is_refused_and_the_log_goes_on(cluster: KafkaSettings, topic: str) -> None:
    """Each of its offsets reads as a record that no decoder takes, whether it is met on the way or begun with."""
    send(cluster, topic, b"before")
    send(cluster, topic, *[bytes(RECEIVED_BYTES_MAX // 2)] * 3)
    send(cluster, topic, b"after", b"and after")
    narrow = replace(cluster, properties=ROOM)
    log = KafkaLog(narrow, topic, "test")
    for begin in (0, 2):
        batches = read(log.reader(0, begin), until=6)
        expected = [b"before", UNREADABLE, UNREADABLE, UNREADABLE, b"after", b"and after"]
        assert [value for batch in batches for value in batch.values] == expected[begin:]
        assert [offset for batch in batches for offset in batch.offsets] == list(range(begin, 6))
        assert all(batch.anchor is None for batch in batches if UNREADABLE in batch.values)
        stand_ins = next(batch for batch in batches if UNREADABLE in batch.values)
        for refused in (decode_log(stand_ins, DecodingSettings()).refused, decode_rollups(stand_ins, 60_000).refused):
            assert [(one.reason, one.whole, one.payload) for one in refused] == [("bad_protobuf", True, UNREADABLE)]
    assert list(tail_values(replace(narrow, partitions=1), topic, 6)) == [b"before", b"after", b"and after"]
