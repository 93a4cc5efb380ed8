"""What one MQTT client received and still owes an acknowledgement for: fed, and it answers.

Rule: pure. No socket, no clock, no thread: its owner calls it under one lock and says what time it is.

A message passes through four places, in order, and is acknowledged at the end and never before::

    waiting ─take─▶ taken ─snapshot─▶ sealed ─flushed─▶ (an Acknowledgement) ─confirm─▶ acknowledged

Guarantees, each held by a test:

- What ``confirm`` releases was taken before a ``snapshot`` that was followed by a ``flushed``: it is durable.
- Acknowledgements of a connection go out on that connection or not at all; packet ids mean nothing on another.
- They go out in the order of receipt, as MQTT demands (section 4.6) and rumqttd enforces.
- Items come out in the order of receipt; a tick comes out behind everything that was received before it.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from connectors.mqtt_gauge import Gauge
from connectors.mqtt_packets import Publishes
from connectors.mqtt_publish import Publish
from schemas.arrivals import Arrivals, Tick

# After an outage of Kafka each client has up to its window to hand out. Handed out all at once, one client after the
# other, the first one's readings would have been quiet for as long as the second's take, and close its windows: 29,529
# of 151,000 readings were late. In slices they take turns. (What came in one piece, 256 KiB, stays together.)
MESSAGES_PER_ITEM_MAX: Final = 2_048
MESSAGE_BYTES: Final = 250  # what a message costs in memory beside its payload, about


class Acknowledgement(NamedTuple):
    """Packet ids that are durable, in order of receipt, of one connection."""

    connection: int
    packet_ids: Sequence[int]
    size_bytes: int


class _Heap:
    """Messages of one connection on their way, as parallel lists."""

    __slots__ = ("content_types", "dups", "packet_ids", "payloads", "size_bytes", "times", "topics")

    def __init__(self) -> None:
        self.packet_ids: list[int | None] = []
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.content_types: list[str | None] = []
        self.times: list[int] = []
        self.dups: list[bool] = []
        self.size_bytes = 0

    def append(self, message: Publish, now_ms: int) -> None:
        self.packet_ids.append(message.packet_id)
        self.topics.append(message.topic)
        self.payloads.append(message.payload)
        self.content_types.append(message.content_type)
        self.times.append(now_ms)
        self.dups.append(message.dup)
        self.size_bytes += len(message.payload) + MESSAGE_BYTES

    def extend(self, messages: Publishes, now_ms: int) -> int:
        """Append ``messages``; how many bytes they take."""
        size_bytes = sum(map(len, messages.payloads)) + MESSAGE_BYTES * len(messages)
        self.packet_ids += messages.packet_ids
        self.topics += messages.topics
        self.payloads += messages.payloads
        self.content_types += messages.content_types
        self.times += [now_ms] * len(messages)
        self.dups += messages.dups
        self.size_bytes += size_bytes
        return size_bytes

    def as_arrivals(self, worker: str) -> Arrivals:
        return Arrivals(worker, self.topics, self.payloads, self.content_types, self.times, self.dups)

    def owing_nothing(self, *, come_again: bool) -> "_Heap":
        """These messages without their packet ids, and if the owed ones come again, without those."""
        kept = _Heap()
        for packet_id, topic, payload, content_type, now_ms, dup in zip(
            self.packet_ids, self.topics, self.payloads, self.content_types, self.times, self.dups, strict=True
        ):
            if packet_id is None or not come_again:
                kept.append(Publish(None, topic, payload, content_type, dup), now_ms)
        return kept


class Inbox:
    """The inbox of one client. Bounded by its owner, who stops reading while it is ``over_full``.

    - ``received``, ``dropped`` (received, and left for the broker to send again), ``acknowledged``: messages, counted.
    """

    def __init__(self, worker: str, *, receive_max: int, size_bytes_max: int) -> None:
        self.worker = worker
        self.gauge = Gauge()
        self.received = 0
        self.dropped = 0
        self.acknowledged = 0
        self._receive_max = receive_max
        self._size_bytes_max = size_bytes_max
        self._size_bytes = 0  # of all that is received and not acknowledged
        self._connection = 0
        self.connected = False  # to the broker, at present
        self._closed = False
        self._waiting: deque[_Heap | Tick] = deque()
        self._taken: list[_Heap] = []
        self._sealed: list[_Heap] = []

    # What the connection says.

    def connect(self, *, session_present: bool) -> int:
        """A connection is up; answers its number.

        With the session present the broker sends again all that was not acknowledged, so what still waits is
        dropped. Without, nobody will: it is kept, and owes no acknowledgement any more.
        """
        self.disconnect()
        self._connection += 1
        self.connected = True
        self._release_waiting(come_again=session_present)
        return self._connection

    def disconnect(self) -> None:
        """The connection is gone, and with it every acknowledgement that is owed on it.

        What waits is held until the next connection tells whether it comes again.
        """
        self.connected = False
        self._taken.clear()
        self._sealed.clear()
        self._size_bytes = 0
        self.gauge = Gauge()

    def receive(self, message: Publish, now_ms: int) -> None:
        """A PUBLISH came in on the current connection."""
        if self._closed:
            return  # not acknowledged, so it comes again
        self._last(1).append(message, now_ms)
        self._size_bytes += len(message.payload) + MESSAGE_BYTES
        self.received += 1
        self.gauge.received(message.packet_id is not None)

    def receive_all(self, messages: Publishes, now_ms: int) -> None:
        """PUBLISH packets came in on the current connection, all in one piece."""
        if self._closed:
            return
        self._size_bytes += self._last(len(messages)).extend(messages, now_ms)
        self.received += len(messages)
        self.gauge.received(len(messages) - messages.packet_ids.count(None))

    def _last(self, room: int) -> _Heap:
        """The heap that what comes in next goes to."""
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, _Heap) or len(last.times) + room > MESSAGES_PER_ITEM_MAX:
            last = _Heap()
            self._waiting.append(last)
        return last

    def answered(self) -> int | None:
        """The broker answered the open question: the time of the tick that was put behind what was received so far."""
        if not self.gauge.asking:
            return None  # the question was of a connection that is being given up
        caught_up_ms = self.gauge.answer()
        if caught_up_ms is not None and not self._closed:
            self._waiting.append(Tick(self.worker, caught_up_ms))
        return caught_up_ms

    def confirm(self, acknowledgement: Acknowledgement, now_ms: int) -> Sequence[int]:
        """The packet ids to send now: those of ``acknowledgement``, or none if its connection is gone."""
        if acknowledgement.connection != self._connection or not self.connected:
            return ()
        self._size_bytes -= acknowledgement.size_bytes
        self.acknowledged += len(acknowledgement.packet_ids)
        self.gauge.acknowledged(len(acknowledgement.packet_ids), now_ms)
        return acknowledgement.packet_ids

    @property
    def over_full(self) -> bool:
        """True while nothing more should be read: the broker goes beyond ``receive_max``, or payloads are large."""
        return self.gauge.in_flight > self._receive_max or self._size_bytes > self._size_bytes_max

    # What the dataflow asks.

    def take(self) -> list[Arrivals | Tick]:
        """What has waited longest: one slice of messages at most, and the ticks around it.

        Nothing while it is unknown whether it comes again.
        """
        if not self.connected and not self._closed:
            return []
        items: list[Arrivals | Tick] = []
        sliced = False
        while self._waiting and not (sliced and isinstance(self._waiting[0], _Heap)):
            first = self._waiting.popleft()
            if isinstance(first, _Heap):
                self._taken.append(first)
                items.append(first.as_arrivals(self.worker))
                sliced = True
            else:
                items.append(first)
        return items

    def snapshot(self) -> None:
        """What was taken so far is in an epoch that ends now."""
        self._sealed += self._taken
        self._taken = []

    def flushed(self) -> Acknowledgement | None:
        """Every epoch that ended is durable: what is to be confirmed for it, on the connection it came by."""
        sealed, self._sealed = self._sealed, []
        if not sealed or not self.connected:
            return None
        owed = [packet_id for heap in sealed for packet_id in heap.packet_ids if packet_id is not None]
        return Acknowledgement(self._connection, owed, sum(heap.size_bytes for heap in sealed))

    def close(self) -> None:
        """Take in nothing more. What waits can be taken, without a connection too: twice is better than never."""
        self._closed = True

    @property
    def drained(self) -> bool:
        """True when nothing waits and nothing taken is unacknowledged."""
        return not self._waiting and not self._taken and not self._sealed and self.gauge.in_flight == 0

    def _release_waiting(self, *, come_again: bool) -> None:
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            if isinstance(item, Tick):
                if not come_again:
                    self._waiting.append(item)
                continue
            kept = item.owing_nothing(come_again=come_again)
            self.dropped += len(item.times) - len(kept.times)
            if kept.times:
                self._waiting.append(kept)
                self._size_bytes += kept.size_bytes
