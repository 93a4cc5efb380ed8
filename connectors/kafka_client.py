"""Kafka clients, configured: the properties this project stands on, the operator's own, and what may not be changed.

librdkafka reports a server that is away by log lines and retries for ever; what no retry can heal becomes an
``OperatorError`` here, in one place.
"""

import logging
import time
from collections.abc import Collection, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.health import HEALTH
from connectors.kafka_outage import OUTAGE
from schemas.errors import OperatorError, ServerAway
from schemas.settings import KafkaSettings

log = logging.getLogger("ionwax.kafka")

Properties = dict[str, str | int | float | bool]

SERVER: Final = "Kafka"
DOUBT_SECS: Final = 45.0  # between two vain tries to connect: a pause, and 30 s until one is given up
ANSWER_SECS: Final = 10.0  # how long a server may take to answer at start
ASK_AGAIN_SECS: Final = 0.1
RECORD_BYTES_MAX: Final = 2 * 1024 * 1024  # a payload at its limit, its headers and the envelope

# After an outage the processes of a flow are to be back within windows.quiet_secs of each other, or what one ingest
# hands over first makes the others' late. librdkafka's own is 10 s.
RECONNECT_MS_MAX: Final = 2_000

READING: Final[Properties] = {
    "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
    "fetch.queue.backoff.ms": 5,  # the default of 1,000 leaves the reader idle: 0.15 M messages/s for 2 M (FACTS.md)
    # A partition's queue: librdkafka fetches while it holds fewer. Batches of 20,000 need no more: the default of
    # 100,000 cost 690 MiB for four partitions; 40,000 and fetches of 1 MB 67 MiB more than these, and were no quicker.
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 32_768,
    "fetch.message.max.bytes": 512 * 1024,  # a larger record comes all the same, alone
}
READING_FIXED: Final[Properties] = {
    "auto.offset.reset": "error",  # an offset that is gone stops the flow; it never jumps
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
}
WRITING: Final[Properties] = {
    "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
    "compression.type": "zstd",
    "compression.level": 1,  # a quarter less CPU a rollup than zstd's own 3, for 5 % more bytes
    "linger.ms": 5,
    "message.max.bytes": RECORD_BYTES_MAX,
    "message.timeout.ms": 86_400_000,  # a day's outage is waited for; the default gives up after five minutes
    "partitioner": "murmur2_random",  # as Java's; librdkafka's own puts most keys elsewhere
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 262_144,
}
WRITING_FIXED: Final[Properties] = {
    "acks": "all",
    "enable.idempotence": True,
    "delivery.report.only.error": True,
}

LEADERLESS: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)

# What no waiting heals, in the operator's words.
INCURABLE: Final[Mapping[int, str]] = {
    KafkaError._AUTO_OFFSET_RESET: "the offset to read next is no longer in the log (retention deleted it)",
    KafkaError._UNKNOWN_TOPIC: "the topic does not exist; ./justw topics creates it",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic does not exist; ./justw topics creates it",
    KafkaError._UNKNOWN_PARTITION: "the partition does not exist; ./justw topics compares topics with the settings",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "these credentials may not use the topic; grant it to them in Kafka's ACLs",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "these credentials may not use the consumer group named after the flow",
    KafkaError._AUTHENTICATION: "Kafka refuses these credentials; look at kafka.properties (sasl.*, ssl.*)",
    KafkaError.SASL_AUTHENTICATION_FAILED: "Kafka refuses these credentials; look at kafka.properties (sasl.*)",
    KafkaError.MSG_SIZE_TOO_LARGE: "a record is larger than the topic allows; ./justw topics compares its limit",
    KafkaError.INVALID_TIMESTAMP: "a record's timestamp is too far ahead; set this machine's clock right (NTP)",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "these credentials may not use an idempotent producer; grant them so",
}


def consumer(settings: KafkaSettings, group: str) -> Consumer:
    """A consumer that is assigned by hand, and never lets the group decide where it reads."""
    properties = _merged(settings, READING, READING_FIXED | {"group.id": group})
    return Consumer(properties | {"error_cb": _Complaints(settings, doubts=True)}, logger=log)


def producer(settings: KafkaSettings) -> Producer:
    """An idempotent producer whose acknowledgement means: on all in-sync replicas."""
    properties = _merged(settings, WRITING, WRITING_FIXED)
    return Producer(properties | {"error_cb": _Complaints(settings)}, logger=log)


def admin(settings: KafkaSettings) -> AdminClient:
    """A client for questions about topics. Keep it until its answers are there: they end with it."""
    return AdminClient(_merged(settings, {}, {}), logger=log)


def bounds(asking: Consumer, topic: str, partition: int, ask_again: Collection[int] = LEADERLESS) -> tuple[int, int]:
    """The first offset that a partition still has, and the next one it will give.

    For a moment after a topic was made, or a broker has started, a partition has no leader: then, or for any error of
    ``ask_again``, it is asked again, for ``ANSWER_SECS`` at most. Raises ``KafkaException``.
    """
    deadline = time.monotonic() + ANSWER_SECS
    while True:
        try:
            return asking.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_SECS)
        except KafkaException as error:
            if error.args[0].code() not in ask_again or time.monotonic() >= deadline:
                raise
            time.sleep(ASK_AGAIN_SECS)


class _Complaints:
    """Says that servers are away, now and then; librdkafka itself says so many times a second."""

    def __init__(self, settings: KafkaSettings, *, doubts: bool = False) -> None:
        self._servers = settings.bootstrap_servers
        self._doubts = doubts  # a consumer asks without pause; a broker hangs up on a producer that was idle
        self._down_until = 0.0

    def __call__(self, error: KafkaError) -> None:
        now = time.monotonic()
        # That all are down is said once, when it begins; from then on only that each cannot be reached.
        if self._doubts and (error.code() == KafkaError._ALL_BROKERS_DOWN or now < self._down_until):
            self._down_until = now + DOUBT_SECS
            HEALTH.doubt(SERVER, DOUBT_SECS)
        OUTAGE.lasts(self._servers, error.str())


def explained(error: KafkaError, topic: str) -> OperatorError | None:
    """The operator's message for an error that waiting does not heal; None for one that it may."""
    if (words := INCURABLE.get(error.code())) is not None:
        return OperatorError(f"Kafka topic {topic}: {words}.")
    if error.fatal():
        return OperatorError(f"Kafka topic {topic}: {error.str()}. The client cannot go on; start the process again.")
    return None


def unreachable(settings: KafkaSettings, error: KafkaException) -> OperatorError:
    """The message for a server that did not answer at start, or refused."""
    cause = error.args[0] if error.args else None
    known = INCURABLE.get(cause.code()) if isinstance(cause, KafkaError) else None
    kind = OperatorError if known else ServerAway
    return kind(
        f"Kafka at {settings.bootstrap_servers} does not answer: {known or error}. "
        "Is it running, and is kafka.bootstrap_servers (or KAFKA_BOOTSTRAP_SERVERS) right?"
    )


def _merged(settings: KafkaSettings, ours: Properties, fixed: Properties) -> Properties:
    theirs = dict(settings.properties)
    for name, value in fixed.items():
        if name in theirs and _spelled(theirs[name]) != _spelled(value):
            raise OperatorError(
                f"kafka.properties.{name}: must be {value}, since the promise of exactly once rests on it; remove it."
            )
    # One set of properties serves every client, so each takes what it knows; librdkafka only warns of the rest.
    common: Properties = {"bootstrap.servers": settings.bootstrap_servers, "log_level": 2}
    return common | ours | theirs | fixed


def _spelled(value: str | int | float | bool) -> str:
    return str(value).lower()
