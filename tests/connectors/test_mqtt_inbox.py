"""The MQTT inbox and its gauge, case by case; ``test_mqtt_inbox_machine`` has the law over all orders of events."""

from connectors.mqtt_gauge import SETTLE_MS, Gauge
from connectors.mqtt_inbox import MESSAGES_PER_ITEM_MAX, Inbox
from connectors.mqtt_publish import Publish
from schemas.arrivals import Arrivals


def inbox_with(*numbers: int, receive_max: int = 100) -> Inbox:
    """An inbox, connected, with these messages received at QoS 1; packet ids are the numbers."""
    inbox = Inbox("w", receive_max=receive_max, size_bytes_max=10**6)
    inbox.connect(session_present=False)
    for number in numbers:
        inbox.receive(Publish(number, "t", b"%d" % number, None, False), 1_000)
    return inbox


def payloads(inbox: Inbox) -> list[bytes]:
    return [payload for item in inbox.take() if isinstance(item, Arrivals) for payload in item.payloads]


def test_what_was_taken_after_the_snapshot_is_not_acknowledged_with_it() -> None:
    """The flush that follows a snapshot proves the epoch before it, and nothing of the next."""
    inbox = inbox_with(1)
    inbox.take()
    inbox.snapshot()
    inbox.receive(Publish(2, "t", b"2", None, False), 1_000)
    inbox.take()
    acknowledgement = inbox.flushed()
    assert acknowledgement is not None
    assert inbox.confirm(acknowledgement, 1_000) == [1]
    assert inbox.flushed() is None


def test_what_was_taken_on_one_connection_is_never_owed_on_the_next() -> None:
    """Its packet id may by now be another message's; the broker sends it again, under a new one."""
    inbox = inbox_with(1, 2)
    inbox.take()
    inbox.disconnect()
    inbox.connect(session_present=True)
    inbox.snapshot()
    assert inbox.flushed() is None


def test_with_the_session_present_what_waits_is_left_to_come_again() -> None:
    """A message of an older connection is not handed out: the broker sends it on the new one."""
    inbox = inbox_with(1, 2)
    inbox.disconnect()
    assert payloads(inbox) == []
    inbox.connect(session_present=True)
    assert payloads(inbox) == []
    assert inbox.dropped == 2


def test_without_the_session_what_waits_is_handed_out_and_owes_nothing() -> None:
    """The broker has forgotten the messages: handing them out is all that can save them."""
    inbox = inbox_with(1, 2)
    inbox.disconnect()
    inbox.connect(session_present=False)
    assert payloads(inbox) == [b"1", b"2"]
    inbox.snapshot()
    acknowledgement = inbox.flushed()
    assert acknowledgement is not None
    assert list(inbox.confirm(acknowledgement, 1_000)) == []
    assert inbox.drained


def test_a_tick_is_dropped_with_the_messages_it_speaks_of() -> None:
    """A tick that still waits when the connection is lost would overtake what has to come again."""
    inbox = inbox_with(1, 2)
    inbox.take()
    inbox.snapshot()
    acknowledgement = inbox.flushed()
    assert acknowledgement is not None
    inbox.confirm(acknowledgement, 1_000)
    inbox.receive(Publish(1, "t", b"comes again", None, False), 2_000)
    inbox.gauge.ask(2_000)
    assert inbox.answered() == 2_000
    inbox.connect(session_present=True)
    assert inbox.take() == []


def test_messages_of_qos_0_survive_a_reconnect() -> None:
    """Nobody sends them again, so they are kept where others are dropped."""
    inbox = inbox_with(1)
    inbox.receive(Publish(None, "t", b"unowed", None, False), 1_000)
    inbox.disconnect()
    inbox.connect(session_present=True)
    assert payloads(inbox) == [b"unowed"]


def test_a_closed_inbox_takes_in_nothing_and_hands_out_the_rest_without_a_connection() -> None:
    """At a stop, what comes too late is not acknowledged, and what is there is not lost with the broker away."""
    inbox = inbox_with(1)
    inbox.close()
    inbox.receive(Publish(2, "t", b"2", None, False), 1_000)
    inbox.disconnect()
    assert not inbox.drained
    assert payloads(inbox) == [b"1"]
    inbox.snapshot()
    assert inbox.flushed() is None
    assert inbox.drained


def test_the_brake_holds_on_bytes_as_on_messages() -> None:
    """A few large payloads fill the inbox as many small ones do, and acknowledging makes room."""
    inbox = inbox_with()
    inbox.receive(Publish(1, "t", bytes(10**6), None, False), 1_000)
    assert inbox.over_full
    inbox.take()
    inbox.snapshot()
    acknowledgement = inbox.flushed()
    assert acknowledgement is not None
    assert inbox.over_full
    inbox.confirm(acknowledgement, 1_000)
    assert not inbox.over_full


def test_what_piled_up_is_handed_out_in_slices() -> None:
    """So that several clients of a worker take turns: none lets the others' windows go quiet meanwhile."""
    inbox = inbox_with(*range(1, MESSAGES_PER_ITEM_MAX + 2), receive_max=65_535)
    assert [len(item) for item in inbox.take() if isinstance(item, Arrivals)] == [MESSAGES_PER_ITEM_MAX]
    assert [len(item) for item in inbox.take() if isinstance(item, Arrivals)] == [1]
    assert inbox.take() == []


def test_a_broker_that_refills_its_window_late_is_not_taken_for_one_without_a_backlog() -> None:
    """A PINGRESP that overtakes the refill comes within SETTLE_MS of the acknowledgement, and counts for nothing."""
    gauge = Gauge()
    for _ in range(100):
        gauge.received()
    gauge.acknowledged(100, 5_000)
    gauge.ask(5_000 + SETTLE_MS - 1)
    assert gauge.answer() is None
    gauge.ask(5_000 + SETTLE_MS)
    assert gauge.answer() == 5_000 + SETTLE_MS


def test_a_silent_broker_lets_its_client_tick() -> None:
    """Nothing in flight and nothing ever seen: any window has room for one."""
    gauge = Gauge()
    gauge.ask(7)
    assert gauge.answer() == 7
