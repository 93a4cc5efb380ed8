"""The MQTT inbox and its gauge, against a broker model that delivers, forgets connections and redelivers.

The model keeps the order of each direction of a connection, has a window of its own (often far below receive_max), and
sends again what was not acknowledged. Packet ids are few, so that one acknowledged on the wrong connection would hit
another message.
"""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from connectors.mqtt_inbox import Acknowledgement, Inbox
from connectors.mqtt_publish import Publish
from schemas.arrivals import Arrivals, Tick

PACKET_IDS = 9
HAPPENED: Counter[str] = Counter()  # hazards that the machine met, so that a test can say that it met them


@dataclass
class Sent:
    number: int
    at_ms: int
    dup: bool = False

    def as_publish(self, packet_id: int) -> Publish:
        return Publish(packet_id, "t", self.number.to_bytes(4), None, self.dup)


class Broker:
    """One session: a queue, a window, and two ordered channels while there is a connection."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.queue: deque[Sent] = deque()
        self.in_flight: OrderedDict[int, Sent] = OrderedDict()
        self.acknowledged: set[int] = set()
        self.to_client: deque[tuple[int, Sent] | None] = deque()  # None: a PINGRESP
        self.to_broker: deque[int | None] = deque()  # None: a PINGREQ
        self.connected = False
        self._next_id = 0

    def connect(self) -> None:
        again = [*self.in_flight.values()]
        self.cut()
        self.connected = True
        for sent in reversed(again):
            sent.dup = True
            self.queue.appendleft(sent)
        self.in_flight.clear()
        self.fill()

    def cut(self) -> None:
        self.connected = False
        self.to_client.clear()
        self.to_broker.clear()

    def fill(self) -> None:
        while self.connected and self.queue and len(self.in_flight) < self.window:
            self._next_id = self._next_id % PACKET_IDS + 1
            while self._next_id in self.in_flight:
                self._next_id = self._next_id % PACKET_IDS + 1
            self.in_flight[self._next_id] = self.queue.popleft()
            self.to_client.append((self._next_id, self.in_flight[self._next_id]))

    def read(self) -> None:
        packet = self.to_broker.popleft()
        if packet is None:
            self.to_client.append(None)
            return
        first = next(iter(self.in_flight))
        assert packet == first, "acknowledged out of order, or what is not in flight"
        self.acknowledged.add(self.in_flight.pop(packet).number)
        self.fill()


class InboxMachine(RuleBasedStateMachine):
    """Connections come and go, epochs end and are flushed, acknowledgements wait in a queue, all in any order."""

    @initialize(window=st.integers(1, PACKET_IDS - 1), receive_max=st.integers(1, PACKET_IDS), start=st.booleans())
    def begin(self, window: int, receive_max: int, start: bool) -> None:
        self.now_ms = 1_000
        self.broker = Broker(window)
        self.inbox = Inbox("w", receive_max=receive_max, size_bytes_max=10**6)
        self.receive_max = receive_max
        self.published: list[Sent] = []
        self.out: list[Sent | Tick] = []  # what the dataflow was given, in order
        self.taken: set[int] = set()
        self.sealed: set[int] = set()
        self.durable: set[int] = set()
        self.waiting: deque[Acknowledgement] = deque()  # on their way from one thread to the other
        if start:
            self.connect()

    @rule(count=st.integers(1, 6), pause_ms=st.sampled_from([0, 1, 100]))
    def publish(self, count: int, pause_ms: int) -> None:
        for _ in range(count):
            sent = Sent(len(self.published), self.now_ms)
            self.published.append(sent)
            self.broker.queue.append(sent)
        self.broker.fill()
        self.now_ms += pause_ms

    @precondition(lambda self: not self.broker.connected)
    @rule()
    def connect(self) -> None:
        self.broker.connect()
        self.inbox.connect(session_present=True)

    @precondition(lambda self: self.broker.connected)
    @rule()
    def cut(self) -> None:
        HAPPENED["cut while something waits"] += not self.inbox.drained
        HAPPENED["cut with acknowledgements on their way"] += bool(self.waiting)
        self.broker.cut()
        self.inbox.disconnect()

    @precondition(lambda self: self.broker.to_broker)
    @rule()
    def broker_reads(self) -> None:
        self.broker.read()

    @rule()
    def client_reads(self) -> None:
        while self.broker.to_client and not self.inbox.over_full:
            self.now_ms += 1
            packet = self.broker.to_client.popleft()
            if packet is not None:
                self.inbox.receive(packet[1].as_publish(packet[0]), self.now_ms)
            elif self.inbox.answered() is None:
                HAPPENED["a tick withheld"] += 1

    @precondition(lambda self: self.broker.connected and not self.inbox.gauge.asking)
    @rule()
    def ask(self) -> None:
        self.now_ms += 1
        HAPPENED["asked under a backlog"] += bool(self.broker.queue)
        self.inbox.gauge.ask(self.now_ms)
        self.broker.to_broker.append(None)

    @rule()
    def take(self) -> None:
        for item in self.inbox.take():
            if isinstance(item, Tick):
                self.check_tick(item)
                self.out.append(item)
                continue
            assert isinstance(item, Arrivals)
            numbers = [int.from_bytes(payload) for payload in item.payloads]
            self.out += [self.published[number] for number in numbers]
            self.taken |= {*numbers}

    def check_tick(self, tick: Tick) -> None:
        """All that the broker had before the tick's time was handed out before the tick."""
        HAPPENED["a tick"] += 1
        before = {sent.number for sent in self.published if sent.at_ms < tick.ts}
        assert before <= self.taken

    @rule()
    def epoch_ends(self) -> None:
        self.inbox.snapshot()
        self.sealed |= self.taken

    @rule()
    def flushed(self) -> None:
        self.durable |= self.sealed
        if (acknowledgement := self.inbox.flushed()) is not None:
            self.waiting.append(acknowledgement)

    @precondition(lambda self: self.broker.connected)
    @rule(count=st.integers(0, 6), more=st.integers(0, 3), then=st.sampled_from(["nothing", "cut", "confirm"]))
    def whole_epoch(self, count: int, more: int, then: str) -> None:
        """What chance would seldom string together: an epoch, some of the next, its flush, and what comes of it."""
        self.publish(count, 100)
        self.client_reads()
        self.take()
        self.epoch_ends()
        self.publish(more, 100)
        self.client_reads()
        self.take()
        self.flushed()
        if then == "cut":
            self.cut()
            self.connect()
        while then == "confirm" and self.waiting:
            self.confirm()
        while then == "confirm" and self.broker.to_broker:
            self.broker_reads()

    @precondition(lambda self: self.waiting)
    @rule()
    def confirm(self) -> None:
        self.now_ms += 1
        acknowledgement = self.waiting.popleft()
        packet_ids = self.inbox.confirm(acknowledgement, self.now_ms)
        HAPPENED["a stale acknowledgement"] += len(packet_ids) < len(acknowledgement.packet_ids)
        self.broker.to_broker.extend(packet_ids)

    @invariant()
    def what_is_acknowledged_is_durable(self) -> None:
        if hasattr(self, "broker"):
            assert self.broker.acknowledged <= self.durable

    @invariant()
    def the_inbox_is_bounded(self) -> None:
        if hasattr(self, "inbox"):
            assert 0 <= self.inbox.gauge.in_flight <= self.receive_max + 1

    def teardown(self) -> None:
        """With a connection that stays, everything is handed out, acknowledged, and said to be drained."""
        if not hasattr(self, "broker"):
            return
        if not self.broker.connected:
            self.connect()
        for _ in range(2 * len(self.published) + 5):
            self.client_reads()
            self.take()
            self.epoch_ends()
            self.flushed()
            while self.waiting:
                self.confirm()
            while self.broker.to_broker:
                self.broker_reads()
        assert self.broker.acknowledged == {sent.number for sent in self.published}
        assert self.inbox.drained


def test_nothing_is_acknowledged_too_early_or_elsewhere_and_all_in_the_end() -> None:
    """Over any order of cuts, epochs and flushes; ticks speak the truth; and the hazards did occur."""
    HAPPENED.clear()
    run_state_machine_as_test(InboxMachine, settings=settings(stateful_step_count=80))
    for hazard in ("cut while something waits", "cut with acknowledgements on their way", "a stale acknowledgement"):
        assert HAPPENED[hazard] > 0, hazard
    for hazard in ("asked under a backlog", "a tick withheld", "a tick"):
        assert HAPPENED[hazard] > 0, hazard
