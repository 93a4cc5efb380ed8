"""A process is ready while it does its work, and says why it is not; its clock is ours."""

import math

import pytest

from connectors.health import WAITING_SECS_MAX, Health, Limits


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    """A process with one partition, claimed at position 10, an epoch just over."""
    made = Health(clock)
    made.limits = Limits(epoch_age_max_secs=10, commit_age_max_secs=60)
    made.built("log 0")
    made.claimed("flow", "log", 0, 10)
    made.opened("log 0")
    return made


def reason(health: Health) -> str:
    (only,) = health.report().reasons
    return only


def test_a_process_without_parts_is_starting(clock: Clock) -> None:
    """However long it takes: claiming may have to wait for a writer that hangs."""
    health = Health(clock)
    clock.now += 42
    assert reason(health) == "starting for 42 s: no part of the input is open yet"


def test_a_part_counts_when_it_is_claimed(health: Health) -> None:
    """Built is not open: between the two it may be refused."""
    health.built("log 1")
    assert reason(health) == "not claimed or subscribed yet: log 1"
    health.opened("log 1")
    assert health.report().ready


def test_one_part_without_an_epoch_is_enough(health: Health, clock: Clock) -> None:
    """The oldest speaks for all: one that is stuck holds up the rest, sooner or later."""
    health.built("log 1")
    health.opened("log 1")
    clock.now += 11
    health.epoch_ended("log 1")
    assert reason(health) == "no epoch has ended for 11 s"
    health.epoch_ended("log 0")
    assert health.report().ready


def test_a_part_that_has_ended_is_not_waited_for(health: Health, clock: Clock) -> None:
    """Else a process that drains would look stuck."""
    health.built("log 1")
    clock.now += 5
    health.closed("log 1")
    clock.now += 6
    health.epoch_ended("log 0")
    assert health.report().ready


def test_what_was_read_is_to_be_committed(health: Health, clock: Clock) -> None:
    """The age is the oldest's: later reads do not make it younger, and a commit of all of them ends it."""
    health.read("log", 0, 20)
    clock.now += 50
    health.read("log", 0, 30)
    health.epoch_ended("log 0")
    assert health.report().ready
    clock.now += 11
    health.epoch_ended("log 0")
    assert reason(health) == "what was read 61 s ago is not committed"
    health.committed("log", 0, 30)
    assert (health.report().ready, health.report().uncommitted_secs) == (True, 0)


def test_a_commit_of_a_part_leaves_the_rest_young(health: Health, clock: Clock) -> None:
    """What was read after the commit's epoch had ended is an epoch old at most."""
    health.read("log", 0, 20)
    clock.now += 50
    health.committed("log", 0, 15)
    clock.now += 20
    assert health.report().uncommitted_secs == 20


def test_what_is_read_again_waits_for_no_commit(health: Health, clock: Clock) -> None:
    """After a resume, records below position only refill open windows."""
    health.read("log", 0, 10)
    clock.now += 1000
    health.epoch_ended("log 0")
    assert health.report().ready


def test_a_server_that_is_away_is_named_and_told_how_long(health: Health, clock: Clock) -> None:
    """So a supervisor tells a process that waits from one that hangs."""
    health.away("the database", 600)
    clock.now += WAITING_SECS_MAX
    health.epoch_ended("log 0")
    assert health.report().ready, "a moment is no outage"
    clock.now += 1
    health.away("the database", 600)
    assert reason(health) == "waiting for the database for 6 s"
    assert health.report().waiting["the database"].at_most_secs == 600
    health.back("the database")
    health.back("the MQTT broker")
    assert health.report().ready


def test_a_client_in_the_background_is_believed_for_a_while(health: Health, clock: Clock) -> None:
    """A consumer whose brokers are all down hears nothing, and nobody waits for it; its complaints come again."""
    health.doubt("Kafka", 45)
    clock.now += 40
    health.doubt("Kafka", 45)
    clock.now += 40
    health.epoch_ended("log 0")
    assert reason(health) == "waiting for Kafka for 80 s"
    health.trust("Kafka")
    assert health.report().ready
    health.doubt("Kafka", 45)
    clock.now += 46
    health.epoch_ended("log 0")
    assert health.report().ready, "no complaint any more"


def test_a_wait_may_have_no_end(health: Health) -> None:
    """The broker is tried for as long as it takes."""
    health.away("the MQTT broker", math.inf)
    assert health.report().waiting["the MQTT broker"].at_most_secs == math.inf
