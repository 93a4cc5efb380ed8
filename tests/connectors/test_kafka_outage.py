"""One voice for all clients of a process: now and then while Kafka is away, once when it is back."""

import logging

import pytest

from connectors import kafka_outage
from connectors.kafka_outage import CALM_SECS, SAY_SECS, VAIN_SECS, Outage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(kafka_outage.time, "monotonic", lambda: now[0])
    return now


def test_an_outage_is_said_now_and_then_and_its_end_once(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Nine clients complain every other second, and records from before are still read meanwhile."""
    outage = Outage()
    with caplog.at_level(logging.WARNING, "ionwax"):
        for _ in range(15):
            for _ in range(9):
                outage.lasts("k:9092", "all brokers are down")
            clock[0] += 2.0
            outage.over()
        clock[0] += CALM_SECS
        outage.over()
        outage.over()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 + 30 // SAY_SECS
    assert all("trying again" in line for line in said[:-1])
    assert said[-1] == "Kafka at k:9092 is back."


def test_the_next_outage_is_said_at_once(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """However soon it follows."""
    outage = Outage()
    with caplog.at_level(logging.WARNING, "ionwax"):
        for _ in range(2):
            outage.lasts("k:9092", "down")
            clock[0] += CALM_SECS
            outage.over()
    assert len(caplog.records) == 4


def test_a_question_in_vain_stands_for_others(clock: list[float]) -> None:
    """For a while: sixteen partitions that end in a row do not wait sixteen times. An answer stands for itself only."""
    outage = Outage()
    asked: list[bool] = []

    def answers(answer: bool) -> bool:
        asked.append(answer)
        return answer

    assert not outage.is_over(lambda: answers(False))
    assert not outage.is_over(lambda: answers(True))
    assert asked == [False]
    clock[0] += VAIN_SECS
    assert outage.is_over(lambda: answers(True))
    assert not outage.is_over(lambda: answers(False))
    assert asked == [False, True, False]
