"""The Kafka connector keeps the contract of ``connectors/README.md``, against Apache Kafka itself."""

import time
import uuid
import zlib
from itertools import pairwise

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from connectors import kafka_topics
from connectors.kafka import KafkaLog
from connectors.kafka_identity import TopicIdentity
from connectors.kafka_sink import Publisher
from schemas.errors import OperatorError
from schemas.record import Record
from schemas.settings import FlagSettings, KafkaSettings, OutputSettings, Settings
from tests.conftest import free_port
from tests.connectors.kafka_place import DEADLINE_SECS, make, read

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


def publish(cluster: KafkaSettings, topic: str, *values: bytes, partition: int = 0) -> None:
    publisher = Publisher(cluster)
    publisher.send_all(
        [Record(topic, value, partition=partition, timestamp_ms=1_000 + i) for i, value in enumerate(values)]
    )
    publisher.flush()


def test_what_was_flushed_is_read_back_in_order(cluster: KafkaSettings, topic: str) -> None:
    """Values, offsets and timestamps come back as they were sent, and batches join without a seam."""
    publish(cluster, topic, b"a", b"", b"c" * 100)

    batches = read(KafkaLog(cluster, topic, "test").reader(0, 0), until=3)

    assert [b"a", b"", b"c" * 100] == [value for batch in batches for value in batch.values]
    assert [0, 1, 2] == [offset for batch in batches for offset in batch.offsets]
    assert [1_000, 1_001, 1_002] == [ms for batch in batches for ms in batch.append_times]
    assert all(one.end == other.start for one, other in pairwise(batches))
    assert zlib.crc32(b"c" * 100) == batches[-1].anchor.checksum


def test_what_a_batch_says_of_a_record_is_found_at_its_place(cluster: KafkaSettings, topic: str) -> None:
    """A batch is read some thousands of messages at a time: offsets, times, headers and tombstones stay in line."""
    ticks, tombstone, count = {0, 1_999, 2_000, 4_321}, 3_333, 5_000
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "enable.idempotence": True})
    for i in range(count):
        value = None if i == tombstone else b"t" if i in ticks else b"%020d" % i
        headers = [("tick", b"%d" % i)] if i in ticks else None
        producer.produce(topic, value, partition=0, timestamp=1_000 + i, headers=headers)
    assert not producer.flush(DEADLINE_SECS)
    reader = KafkaLog(cluster, topic, "test").reader(0, 0)

    batches = read(reader, until=count)

    assert list(range(count)) == [offset for batch in batches for offset in batch.offsets]
    assert [1_000 + i for i in range(count)] == [ms for batch in batches for ms in batch.append_times]
    found = {batch.offsets[row]: headers for batch in batches for row, headers in batch.headers.items()}
    assert {i: (("tick", b"%d" % i),) for i in ticks} == found
    values = [value for batch in batches for value in batch.values]
    assert [b"", b"%020d" % 4_999] == [values[tombstone], values[-1]]
    assert all(batch.anchor.checksum == zlib.crc32(batch.values[-1]) for batch in batches)


def test_reading_begins_at_the_asked_offset(cluster: KafkaSettings, topic: str) -> None:
    """A position comes from the database; the consumer group has no say in it."""
    publish(cluster, topic, b"a", b"b", b"c")
    log = KafkaLog(cluster, topic, "test")
    read(log.reader(0, 0), until=3)

    assert [b"b", b"c"] == [value for batch in read(log.reader(0, 1), until=3) for value in batch.values]


def test_markers_of_transactions_are_gaps(cluster: KafkaSettings, topic: str) -> None:
    """An offset without a record is covered by [start, end) and is not among the offsets."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions(DEADLINE_SECS)
    for value in (b"a", b"b"):
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.commit_transaction(DEADLINE_SECS)

    batches = read(KafkaLog(cluster, topic, "test").reader(0, 0), until=3)

    assert [0, 2] == [offset for batch in batches for offset in batch.offsets]
    assert 3 == batches[-1].end


def test_only_small_records_without_a_key_show_their_headers(cluster: KafkaSettings, topic: str) -> None:
    """Ticks are recognised by headers; those of telemetry are never read, because reading them costs."""
    publisher = Publisher(cluster)
    headers = (("tick", b""), ("ingest-node-id", b"n"))
    publisher.send_all(
        [
            Record(topic, b"1234567", headers=headers, partition=0),
            Record(topic, b"1234567", key=b"k", headers=headers, partition=0),
            Record(topic, b"x" * 17, headers=headers, partition=0),
        ]
    )
    publisher.flush()

    (batch,) = read(KafkaLog(cluster, topic, "test").reader(0, 0), until=3)

    assert {0: headers} == batch.headers


def test_the_anchor_is_the_record_at_its_offset(cluster: KafkaSettings, topic: str) -> None:
    """An anchor read back equals the one of the batch; beyond the end there is none."""
    publish(cluster, topic, b"a", b"b")
    log = KafkaLog(cluster, topic, "test")
    (batch,) = read(log.reader(0, 0), until=2)

    assert batch.anchor == log.anchor(0, 1)
    assert log.anchor(0, 2) is None
    assert (0, 2) == log.bounds(0)


def test_a_topic_made_again_is_another_log(cluster: KafkaSettings, admin: AdminClient, topic: str) -> None:
    """Its name is the same, its identity is not."""
    log = KafkaLog(cluster, topic, "test")
    before = log.identity()
    admin.delete_topics([topic])[topic].result(DEADLINE_SECS)
    deadline = time.monotonic() + DEADLINE_SECS
    while True:  # deletion is asynchronous
        try:
            make(admin, topic)
            break
        except KafkaException:
            assert time.monotonic() < deadline, "the topic can be made again"

    while identity_or_none(log) in (before, None):  # a busy broker may still know the one before, or neither
        assert time.monotonic() < deadline, "it has an identity of its own"
    assert not log.is_still(before, time.monotonic())


def test_an_answer_holds_for_what_was_read_before_it_was_asked_for(cluster: KafkaSettings, topic: str) -> None:
    """One question serves all partitions of an epoch, and none serves a later epoch; silence is no other topic."""
    log, began = KafkaLog(cluster, topic, "test"), time.monotonic()
    known = log.identity()
    asked: list[float] = []
    of = TopicIdentity(cluster, topic, lambda: asked.append(time.monotonic()) or asked[-1])
    assert of.is_still(known, began)
    assert of.is_still(known, began)
    assert len(asked) == 1
    assert of.is_still(known, time.monotonic())
    assert len(asked) == 2
    assert not of.is_still("another", began)
    away = TopicIdentity(replace(cluster, bootstrap_servers=f"127.0.0.1:{free_port()}"), topic)
    assert away.is_still("another", began)


def identity_or_none(log: KafkaLog) -> str | None:
    try:
        return log.identity()
    except OperatorError:
        return None


def test_an_offset_that_retention_deleted_stops_the_reader(
    cluster: KafkaSettings, admin: AdminClient, topic: str
) -> None:
    """It never jumps to the end or the beginning: that would lose or repeat readings without a word."""
    publish(cluster, topic, b"a", b"b", b"c")
    asked = admin.delete_records([TopicPartition(topic, 0, 2)])
    for answer in asked.values():
        answer.result(DEADLINE_SECS)
    reader = KafkaLog(cluster, topic, "test").reader(0, 0)

    with pytest.raises(OperatorError, match="no longer in the log"):
        read(reader, until=3)


def test_a_missing_topic_is_one_message(cluster: KafkaSettings) -> None:
    """It names the topic and the command that makes it."""
    with pytest.raises(OperatorError, match=r"no\.such\.topic.*\./justw topics"):
        KafkaLog(cluster, "no.such.topic", "test").partitions()


def test_topics_are_made_once_and_compared_after(cluster: KafkaSettings) -> None:
    """What exists is never changed; each difference is named."""
    prefix = uuid.uuid4().hex
    settings = Settings(
        kafka=KafkaSettings(
            bootstrap_servers=cluster.bootstrap_servers,
            partitions=3,
            events_topic=f"{prefix}.events",
            dead_letter_topic=f"{prefix}.dead",
        ),
        output=OutputSettings(topic=f"{prefix}.minute"),
        flags=FlagSettings(topic=f"{prefix}.anomalies"),
    )
    with pytest.raises(OperatorError, match=r"\./justw topics"):
        kafka_topics.check(settings, settings.kafka.events_topic)

    assert [(True, [])] * 4 == [(finding.made, finding.wrong) for finding in kafka_topics.ensure(settings)]
    assert [(False, [])] * 4 == [(finding.made, finding.wrong) for finding in kafka_topics.ensure(settings)]
    kafka_topics.check(settings, settings.kafka.events_topic)

    wider = Settings(
        kafka=KafkaSettings(
            bootstrap_servers=cluster.bootstrap_servers,
            partitions=4,
            retention_hours=1,
            events_topic=f"{prefix}.events",
            dead_letter_topic=f"{prefix}.dead",
        ),
        output=OutputSettings(topic=f"{prefix}.minute"),
    )
    events = kafka_topics.ensure(wider)[0]
    assert ["has 3 partitions, should have 4", "retention.ms is 604800000, should be 3600000"] == events.wrong
    with pytest.raises(OperatorError, match=r"has 3 partitions, but kafka.partitions is 4"):
        kafka_topics.check(wider, wider.kafka.events_topic)
