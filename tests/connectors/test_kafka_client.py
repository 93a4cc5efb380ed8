"""What the Kafka clients say before any server is needed."""

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from connectors import kafka_client, kafka_topics, stopping
from connectors.health import HEALTH
from connectors.kafka import KafkaLog
from connectors.kafka_outage import OUTAGE
from connectors.kafka_sink import Publisher
from schemas.errors import OperatorError
from schemas.record import Record
from schemas.settings import KafkaSettings, Settings

NOBODY = "127.0.0.1:1"  # tcpmux: nobody listens there


def test_a_property_that_the_promise_rests_on_is_refused() -> None:
    """Every librdkafka property passes through but those that would break exactly once."""
    with pytest.raises(OperatorError, match=r"kafka\.properties\.enable\.auto\.commit: must be False"):
        kafka_client.consumer(KafkaSettings(properties={"enable.auto.commit": True}), "test")
    with pytest.raises(OperatorError, match=r"kafka\.properties\.acks: must be all"):
        kafka_client.producer(KafkaSettings(properties={"acks": 1}))


def test_a_property_may_say_what_holds_anyway() -> None:
    """Saying the same in another spelling is no contradiction."""
    kafka_client.consumer(KafkaSettings(properties={"enable.auto.commit": "false"}), "test").close()


def test_an_unreachable_server_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the address and the setting."""
    monkeypatch.setattr("connectors.kafka.ANSWER_SECS", 0.5)
    monkeypatch.setattr("connectors.kafka_client.ANSWER_SECS", 0.5)
    monkeypatch.setattr("connectors.kafka_topics.ANSWER_SECS", 0.5)
    kafka = KafkaSettings(bootstrap_servers=NOBODY)
    for ask in (
        KafkaLog(kafka, "t", "g").partitions,
        KafkaLog(kafka, "t", "g").identity,
        lambda: KafkaLog(kafka, "t", "g").bounds(0),
        lambda: kafka_topics.ensure(Settings(kafka=kafka)),
        lambda: kafka_topics.check(Settings(kafka=kafka), "raw.events"),
    ):
        with pytest.raises(OperatorError, match=rf"Kafka at {NOBODY} does not answer.*kafka\.bootstrap_servers"):
            ask()


def test_a_flush_ends_when_the_process_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is waited for, but a stop does not hang on it; nothing counts as flushed."""
    monkeypatch.setattr("connectors.kafka_sink.STOP_SECS", 0.0)
    publisher = Publisher(KafkaSettings(bootstrap_servers=NOBODY))
    publisher.send(Record("t", b"x"))
    stopping.request()
    try:
        with pytest.raises(OperatorError, match="1 records were not written"):
            publisher.flush()
    finally:
        stopping.forget()
    assert (1, 0) == (publisher.sent, publisher.flushed)


def test_a_flush_of_nothing_does_not_say_that_kafka_is_back() -> None:
    """Nobody was asked: a process that then ends has to say that it ended while Kafka was away."""
    publisher = Publisher(KafkaSettings(bootstrap_servers=NOBODY))
    HEALTH.doubt(kafka_client.SERVER, 45.0)
    try:
        publisher.flush()
        assert HEALTH.doubts(kafka_client.SERVER)
    finally:
        HEALTH.trust(kafka_client.SERVER)


def test_a_reader_that_ends_asks_where_somebody_complained() -> None:
    """Nobody has doubted Kafka yet, but a client was cut off: what is away is found out, once for all partitions."""
    readers = [KafkaLog(KafkaSettings(bootstrap_servers=NOBODY), "t", "g").reader(partition, 0) for partition in (0, 1)]
    OUTAGE.lasts(NOBODY, "cut off")
    try:
        for reader in readers:
            reader.close()
        assert HEALTH.doubts(kafka_client.SERVER)
    finally:
        HEALTH.trust(kafka_client.SERVER)
        OUTAGE.__init__()  # type: ignore[misc]


class Leaderless:
    """A consumer of a cluster that is choosing a leader: so many refusals, then an answer."""

    def __init__(self, refusals: int, code: int = KafkaError.NOT_LEADER_FOR_PARTITION) -> None:
        self.refusals, self.code = refusals, code

    def get_watermark_offsets(self, _place: TopicPartition, **_: float) -> tuple[int, int]:
        self.refusals -= 1
        if self.refusals >= 0:
            raise KafkaException(KafkaError(self.code))
        return 3, 7


def test_a_partition_without_a_leader_is_asked_again() -> None:
    """As it is for a moment after its topic was made; what waiting does not heal is raised at once, or in the end."""
    assert kafka_client.bounds(Leaderless(2), "t", 0) == (3, 7)  # type: ignore[arg-type]
    unknown = Leaderless(2, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException):
        kafka_client.bounds(unknown, "t", 0)  # type: ignore[arg-type]
    assert unknown.refusals == 1


def test_a_leader_that_never_comes_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """ANSWER_SECS at most."""
    monkeypatch.setattr(kafka_client, "ANSWER_SECS", 0.3)
    with pytest.raises(KafkaException):
        kafka_client.bounds(Leaderless(10**9), "t", 0)  # type: ignore[arg-type]
