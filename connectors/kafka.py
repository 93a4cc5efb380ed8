"""Kafka as a log that can be read again: the ``Log`` of the checkpoint protocol.

Positions come from the database (``connectors.checkpoint``), never from a consumer group; the group is written so
that lag monitors see the flow, and never read back. A partition has a consumer of its own, so a slow or gone
partition holds up no other. No call waits inside a running dataflow.
"""

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, cast

import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicCollection, TopicPartition

from connectors import kafka_client
from connectors.health import HEALTH
from connectors.kafka_client import ANSWER_SECS
from connectors.kafka_identity import TopicIdentity
from connectors.kafka_outage import OUTAGE
from connectors.kafka_unreadable import APPENDED_MS, ERRORS, UNREADABLE, Unreadable
from schemas.errors import OperatorError
from schemas.log import LogBatch
from schemas.packed import Packed, Sizes
from schemas.progress import Anchor
from schemas.record import Headers
from schemas.settings import KafkaSettings

BATCH_RECORDS_MAX: Final = 20_000  # one item of the dataflow; larger gains nothing and delays the epoch
BATCH_BYTES_MAX: Final = 32 * 1024 * 1024  # and one item is not much more, which is a queue's content
RECORDS_AT_ONCE: Final = 2_000  # messages alive at a time: so few are still in the processor's cache when they are read
TICK_BYTES_MAX: Final = 16  # an empty Telemetry with a timestamp takes 7 to 12; headers of larger ones are not read
CLOSE_SECS_MAX: Final = 1.0
LOOK_AGAIN_SECS: Final = 1.0  # at the end, at a server that was away
MIRROR_SECS: Final = 5.0  # how often the position is written to the consumer group


class KafkaLog:
    """One topic of one cluster. Cheap to make; it connects when first asked.

    Guarantees: every record from the asked offset on, once, in order, or an ``OperatorError``. Offsets without a record
    are left out and show as gaps. Counts: nothing of its own; the ledger accounts for each offset.
    """

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        self._settings = settings
        self._group = group
        self._id = TopicIdentity(settings, topic)
        self.topic: Final = topic

    def partitions(self) -> Sequence[int]:
        """The partitions of the topic, ascending. Raises ``OperatorError`` where topic or server is missing."""
        asking = kafka_client.admin(self._settings)
        try:
            found = asking.list_topics(self.topic, timeout=ANSWER_SECS).topics[self.topic]
        except KafkaException as error:
            raise kafka_client.unreachable(self._settings, error) from None
        if found.error is not None:
            raise kafka_client.explained(found.error, self.topic) or OperatorError(
                f"Kafka topic {self.topic}: {found.error.str()}."
            )
        return sorted(found.partitions)

    def identity(self) -> str:
        """The topic's id, which Kafka gives anew when a topic is deleted and made again."""
        asking = kafka_client.admin(self._settings)
        asked = asking.describe_topics(TopicCollection([self.topic]), request_timeout=ANSWER_SECS)
        try:
            return str(asked[self.topic].result().topic_id)
        except KafkaException as error:
            known = kafka_client.explained(error.args[0], self.topic)
            raise known or kafka_client.unreachable(self._settings, error) from None

    def is_still(self, topic_id: str, since: float) -> bool:
        """Whether what was read until ``since`` is of the topic of that id; True also where Kafka does not answer."""
        return self._id.is_still(topic_id, since)

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset the log still has, and the next one it will give."""
        asking = kafka_client.consumer(self._settings, self._group)
        try:
            low, high = kafka_client.bounds(asking, self.topic, partition)
        except KafkaException as error:
            known = kafka_client.explained(error.args[0], self.topic)
            raise known or kafka_client.unreachable(self._settings, error) from None
        finally:
            asking.close()
        return low, high

    def anchor(self, partition: int, offset: int) -> Anchor | None:
        """The record at ``offset``; None where the log holds none there (deleted, compacted, or a marker)."""
        low, high = self.bounds(partition)
        if not low <= offset < high:
            return None
        reading = kafka_client.consumer(self._settings, self._group)
        try:
            reading.assign([TopicPartition(self.topic, partition, offset)])
            deadline = time.monotonic() + ANSWER_SECS
            while time.monotonic() < deadline:
                message = reading.poll(0.1)
                if message is not None and message.error() is None:
                    return _anchor(message) if message.offset() == offset else None
        finally:
            reading.close()
        raise OperatorError(
            f"Kafka topic {self.topic}, partition {partition}: the record at offset {offset} could not be read back "
            f"within {ANSWER_SECS:.0f} s. Is the cluster healthy?"
        )

    def reader(self, partition: int, offset: int) -> "KafkaReader":
        """Read the partition from ``offset`` on."""
        consumer = kafka_client.consumer(self._settings, self._group)
        consumer.assign([TopicPartition(self.topic, partition, offset)])
        return KafkaReader(consumer, self.topic, partition, offset)


class KafkaReader:
    """One partition, read in order. Owned by one worker; not safe to share."""

    def __init__(self, consumer: Consumer, topic: str, partition: int, offset: int) -> None:
        self._consumer = consumer
        self._topic = topic
        self._partition = partition
        self._next = offset
        self._unreadable = Unreadable()
        self._mirrored = offset
        self._mirror_at = time.monotonic() + MIRROR_SECS

    def read(self) -> LogBatch | None:
        """What has arrived, without waiting: at most ``BATCH_RECORDS_MAX`` records; None where nothing has.

        Raises ``OperatorError`` where waiting would not help: offset deleted by retention, topic gone, access denied.
        """
        self._mirror()
        gathered = _Gathered()
        for _ in range(BATCH_RECORDS_MAX // RECORDS_AT_ONCE):
            messages = self._consumer.consume(RECORDS_AT_ONCE, 0)
            if any(map(_error_of, messages)):
                messages = self._sound(messages)
            if not messages:
                break
            gathered.add(messages)
            if len(gathered.data) >= BATCH_BYTES_MAX:
                break
        if not gathered.sizes:
            return self._stand_in() if self._unreadable.is_given_up(self._next) else None
        self._unreadable.passed()
        HEALTH.trust(kafka_client.SERVER)
        OUTAGE.over()
        start, self._next = self._next, gathered.end
        return LogBatch(
            topic=self._topic,
            partition=self._partition,
            start=start,
            end=self._next,
            offsets=gathered.offsets,
            append_times=gathered.append_times,
            values=Packed(gathered.data, np.concatenate(gathered.sizes)),
            headers=gathered.headers,
            anchor=gathered.anchor,
        )

    def end(self) -> int | None:
        """The end of the log as of the last answer to a fetch."""
        found = self._consumer.get_watermark_offsets(TopicPartition(self._topic, self._partition), cached=True)
        return found[1] if found and found[1] >= 0 else None

    def reached(self) -> int:
        """The next offset to come: behind markers and aborted records, too, which are not handed out."""
        return max(self._next, self._consumer.position([TopicPartition(self._topic, self._partition)])[0].offset)

    def close(self) -> None:
        """Let lag monitors see where it ends. For a server that is away librdkafka would wait a minute; not here."""
        if HEALTH.doubts(kafka_client.SERVER) or OUTAGE.is_suspected:
            if OUTAGE.is_over(self._is_answered):
                HEALTH.trust(kafka_client.SERVER)
            else:
                HEALTH.doubt(kafka_client.SERVER, kafka_client.DOUBT_SECS)
        self._mirror(now=True)
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(0 if HEALTH.doubts(kafka_client.SERVER) else CLOSE_SECS_MAX)
        if closing.is_alive():
            HEALTH.doubt(kafka_client.SERVER, kafka_client.DOUBT_SECS)

    def _is_answered(self) -> bool:
        try:
            self._consumer.get_watermark_offsets(TopicPartition(self._topic, self._partition), timeout=LOOK_AGAIN_SECS)
        except KafkaException:
            return False
        return True

    def _sound(self, messages: list[Message]) -> list[Message]:
        """The records among ``messages``; an error that does not heal by itself is raised."""
        for message in messages:
            if (error := message.error()) is not None:
                if (known := kafka_client.explained(error, self._topic)) is not None:
                    raise OperatorError(f"Partition {self._partition}, offset {self._next}: {known}")
                if error.code() in ERRORS:
                    self._unreadable.met(self._next)
                kafka_client.log.warning("%s, partition %d: %s", self._topic, self._partition, error.str())
        return [message for message in messages if message.error() is None]

    def _stand_in(self) -> LogBatch:
        """One offset of a batch that cannot be read, as a record that no decoder takes; it has no anchor."""
        at, self._next = self._next, self._next + 1
        self._consumer.seek(TopicPartition(self._topic, self._partition, self._next))
        kafka_client.log.error("%s, partition %d: offset %d is refused, unread", self._topic, self._partition, at)
        return LogBatch(self._topic, self._partition, at, self._next, (at,), (APPENDED_MS,), (UNREADABLE,))

    def _mirror(self, now: bool = False) -> None:
        """Show lag monitors how far the flow has read; it is never read back, so its failure costs nothing."""
        if self._next == self._mirrored or not (now or time.monotonic() >= self._mirror_at):
            return
        self._mirror_at = time.monotonic() + MIRROR_SECS
        self._mirrored = self._next
        try:
            self._consumer.commit(offsets=[TopicPartition(self._topic, self._partition, self._next)], asynchronous=True)
        except KafkaException as error:
            kafka_client.log.debug("position not mirrored: %s", error)


_error_of = Message.error
_timestamp_of = Message.timestamp
# What the stubs of confluent_kafka leave open: a record without an error has an offset; only a tombstone has no value.
_value_of = cast("Callable[[Message], bytes]", Message.value)
_offset_of = cast("Callable[[Message], int]", Message.offset)


class _Gathered:
    """The parts of one batch. Every call on a message costs; most are made by ``map``, and none that is not needed.

    Values are put into one piece at once: they are in the processor's cache then, and their objects can go.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.sizes: list[Sizes] = []
        self.append_times: list[int] = []
        self.headers: dict[int, Headers] = {}
        self.anchor: Anchor | None = None
        self._offsets: list[Sequence[int]] = []

    def add(self, messages: list[Message]) -> None:
        """The next records: at least one, without errors."""
        values = list(map(_value_of, messages))
        if not all(values):
            values = [value or b"" for value in values]  # tombstones
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        if np.min(sizes) <= TICK_BYTES_MAX:
            at = len(self.append_times)
            small = np.flatnonzero(sizes <= TICK_BYTES_MAX).tolist()
            self.headers |= {at + i: found for i in small if (found := _tick_headers(messages[i]))}
        self.data += b"".join(values)
        self.sizes.append(sizes)
        self.append_times += [time_ms for _, time_ms in map(_timestamp_of, messages)]
        self.anchor = _anchor(messages[-1])
        first, end = _offset_of(messages[0]), self.anchor.offset + 1
        whole = end - first == len(messages)  # offsets ascend, so none is missing
        self._offsets.append(range(first, end) if whole else list(map(_offset_of, messages)))

    @property
    def offsets(self) -> Sequence[int]:
        first, end = self._offsets[0][0], self.end
        return range(first, end) if end - first == len(self.append_times) else list(chain.from_iterable(self._offsets))

    @property
    def end(self) -> int:
        """The offset after the last record's."""
        return self._offsets[-1][-1] + 1


def _tick_headers(message: Message) -> Headers:
    if message.key() is not None:
        return ()
    headers = message.headers()
    if not isinstance(headers, list):
        return ()
    return tuple((name, content) for name, content in headers if isinstance(content, bytes))


def _anchor(message: Message) -> Anchor:
    offset = message.offset()
    assert offset is not None, "only records that were read have an anchor"
    return Anchor(offset, message.timestamp()[1], zlib.crc32(message.value() or b""))
