"""One dead letter, and all of them, read back from Kafka in order."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from google.protobuf.message import DecodeError

from connectors import kafka_client
from connectors.kafka_client import ANSWER_SECS
from dataflows.decoding.topics import TopicTemplate
from schemas.errors import OperatorError
from schemas.rollup_pb2 import Rollup
from schemas.settings import KafkaSettings
from schemas.telemetry_pb2 import Telemetry

GROUP: Final = "ionwax-letters"  # of the client library's making; it holds no positions
AT_ONCE_MAX: Final = 1_000
POLL_SECS: Final = 0.2
SILENT_SECS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class Letter:
    """One payload that was refused, wholly or in part, and where it stands. ``time_ms`` is when it came."""

    partition: int
    offset: int
    time_ms: int
    headers: Mapping[str, str]
    payload: bytes

    @property
    def reason(self) -> str:
        return self.headers.get("reason", "?")

    @property
    def source(self) -> str:
        """The topic it came by: of MQTT or, where ``from_log``, of Kafka."""
        return self.headers.get("source-topic", "")

    @property
    def from_log(self) -> bool:
        """Whether a dataflow refused what stood in the log; else ingest refused what a device sent."""
        return "source-offset" in self.headers

    @property
    def original_bytes(self) -> int | None:
        """Size of the payload where only its beginning was kept."""
        return int(self.headers["original-size"]) if "original-size" in self.headers else None

    @property
    def place(self) -> str:
        return f"{self.partition}/{self.offset}"

    def device(self, template: TopicTemplate) -> str:
        """The device, where that can be told; "" where not."""
        if not self.from_log:
            captures = template.match(self.source)
            return "" if captures is None else template.device_id(captures) or ""
        return _device_in(self.payload)


def _device_in(payload: bytes) -> str:
    """The device of a record of ``raw.events`` or of ``aggregates.minute``; "" where that cannot be told."""
    with suppress(DecodeError):
        if device := Telemetry.FromString(payload).device_id:
            return device
    with suppress(DecodeError):
        rollup = Rollup.FromString(payload)
        return rollup.device_id if rollup.bucket else ""  # of no Telemetry is there a number in that place
    return ""


def letters(
    settings: KafkaSettings, since_ms: int | None = None, begins: Mapping[int, int] | None = None
) -> Iterator[Letter]:
    """All letters that stand there now, from a time or from offsets on; by partition, each in order.

    Raises ``OperatorError``.
    """
    for message in messages(settings, settings.dead_letter_topic, begins, since_ms):
        yield Letter(
            message.partition() or 0,
            message.offset() or 0,
            message.timestamp()[1],
            headers_of(message),
            message.value() or b"",
        )


def headers_of(message: Message) -> dict[str, str]:
    """Headers as text. Of a name that stands twice the last counts."""
    found = message.headers() or []
    pairs = found if isinstance(found, list) else list(found.items())
    return {name: value.decode(errors="replace") if isinstance(value, bytes) else str(value) for name, value in pairs}


def messages(
    settings: KafkaSettings,
    topic: str,
    begins: Mapping[int, int] | None = None,
    since_ms: int | None = None,
    until: Mapping[int, int] | None = None,
) -> Iterator[Message]:
    """Records of a topic up to its present end, or to the offsets ``until``; from ``begins``, or a time on."""
    consumer = kafka_client.consumer(settings, GROUP)
    try:
        found = consumer.list_topics(topic, timeout=ANSWER_SECS).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        for partition in sorted(found.partitions if begins is None else begins):
            place = TopicPartition(topic, partition)
            low, end = kafka_client.bounds(consumer, topic, partition)
            if until is not None:
                end = min(end, until.get(partition, end))
            place.offset = low if begins is None else max(low, begins[partition])
            if since_ms is not None:
                place.offset = first_since(consumer, topic, partition, since_ms, end)
            yield from _until(consumer, place, end)
    except KafkaException as error:
        raise kafka_client.explained(error.args[0], topic) or kafka_client.unreachable(settings, error) from None
    finally:
        consumer.close()


def first_since(consumer: Consumer, topic: str, partition: int, since_ms: int, end: int) -> int:
    """The first offset appended at ``since_ms`` or later; ``end`` where there is none."""
    (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, since_ms)], timeout=ANSWER_SECS)
    return found.offset if found.offset >= 0 else end


def _until(consumer: Consumer, place: Any, end: int) -> Iterator[Message]:
    reached, heard_at = place.offset, time.monotonic()
    if reached >= end:
        return
    consumer.assign([place])
    while reached < end:
        some = consumer.consume(AT_ONCE_MAX, POLL_SECS)
        # Behind the last record there may be markers of transactions, or aborted ones, which nobody hands out.
        reached = max(reached, consumer.position([place])[0].offset) if not some else reached
        if not some and time.monotonic() > heard_at + SILENT_SECS_MAX:
            raise OperatorError(
                f"{place.topic}, partition {place.partition}: silent for {SILENT_SECS_MAX:.0f} s at offset {reached} "
                f"of {end}. Is Kafka well?"
            )
        for message in some:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            heard_at = time.monotonic()
            reached = (message.offset() or 0) + 1
            if reached <= end:
                yield message
