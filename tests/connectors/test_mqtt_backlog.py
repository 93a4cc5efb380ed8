"""Ticks wait until a resumed session has given out what waited in it, and no longer than they must."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from connectors.mqtt_backlog import PATIENCE_MS, SAMPLE_MS, Backlog

LOOK_MS = 250  # how often the client looks


def over_at(received: Callable[[int], float], until_ms: int = 2 * PATIENCE_MS) -> int | None:
    """When ticks may begin, ms after the session was resumed, if ``received`` messages have come by each instant."""
    backlog = Backlog(1_000_000, 0)
    for at in range(0, until_ms, LOOK_MS):
        if backlog.over(1_000_000 + at, int(received(at))):
            return at
    return None


@given(waiting=st.integers(2_000, 1_000_000), per_sec=st.integers(1_000, 50_000), live=st.integers(0, 200))
def test_ticks_wait_for_the_end_of_a_backlog(waiting, per_sec, live):
    """Not before the last message that waited has come, and within two seconds after it."""
    end_ms = waiting * 1_000 / per_sec
    began = over_at(lambda at: min(waiting, at * per_sec / 1_000) + live * at / 1_000, int(end_ms) + 2 * PATIENCE_MS)
    assert began is not None
    assert began >= min(end_ms, PATIENCE_MS)
    assert began <= end_ms + 2_000 + LOOK_MS


@given(live=st.integers(0, 95))
def test_without_a_backlog_ticks_begin_at_once(live):
    """A second or so after a reconnect, where devices speak as slowly as nothing that waits would come."""
    began = over_at(lambda at: live * at / 1_000)
    assert began is not None
    assert began <= 2 * SAMPLE_MS + LOOK_MS


def test_a_busy_fleet_ticks_when_patience_is_over():
    """Five thousand messages a second look like a backlog that never ends."""
    assert over_at(lambda at: 5 * at) == PATIENCE_MS


@given(starts_ms=st.integers(0, 400), pause_ms=st.integers(0, 400), paused_at_ms=st.integers(500, 2_000))
def test_a_hiccup_is_not_the_end(starts_ms, pause_ms, paused_at_ms):
    """A broker that needs a moment to begin, or pauses for less than a sample, is waited for."""

    def received(at: int) -> float:
        sending_ms = max(0, at - starts_ms)
        if sending_ms > paused_at_ms:
            sending_ms = max(paused_at_ms, sending_ms - pause_ms)
        return min(20_000, 4 * sending_ms)

    began = over_at(received)
    assert began is not None
    assert began >= 5_000


def test_once_over_it_stays_over():
    """A later burst is of devices, and of the gauge to judge."""
    backlog = Backlog(0, 0)
    assert not backlog.over(0, 0)
    assert not backlog.over(500, 0)
    assert backlog.over(1_000, 0)
    assert backlog.over(1_500, 100_000)


def test_a_clock_that_is_set_back_does_not_hold_ticks_for_ever():
    """A jump of the wall clock as long as patience counts as patience."""
    backlog = Backlog(10_000_000, 0)
    assert not backlog.over(10_000_000, 0)
    assert backlog.over(10_000_000 - PATIENCE_MS, 0)
