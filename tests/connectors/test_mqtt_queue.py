"""What is said of the broker's queue: what is known, and no more."""

import logging

import pytest

from connectors import mqtt_queue
from connectors.mqtt_queue import bearing
from infra.embedded.mqtt import MqttBroker
from schemas.settings import MqttSettings
from tests.connectors.mqtt_flow import Ledger, running, until
from tests.connectors.mqtt_place import place_at


@pytest.mark.parametrize(
    ("queue", "rate", "said"),
    [
        (None, 50.0, "is not known: set mqtt.broker_queue_messages_max"),
        (0, 50.0, "keeps all of them, for up to 24 h."),
        (1_000, 500.0, "of 1,000 bears an absence of 2.0 s; what comes later is lost!"),
        (1_000_000, 500.0, "of 1,000,000 bears an absence of 33 min."),
        (1_000, 0.0, "bears an absence of 24 h."),
        (10**9, 1.0, "bears an absence of 24 h."),  # the session ends before the queue is full
    ],
)
def test_the_queue_is_told_in_time(queue: int | None, rate: float, said: str) -> None:
    """As the seconds of our rate that it holds, where its length is known."""
    assert said in bearing(MqttSettings(broker_queue_messages_max=queue), rate)


@pytest.mark.embedded
def test_a_start_says_it_once(
    mqtt_broker: MqttBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the rate that was measured."""
    monkeypatch.setattr(mqtt_queue, "MEASURE_SECS", 0.5)

    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if "messages a second" in r.getMessage()]

    for place in place_at(mqtt_broker.url, broker_queue_messages_max=1_000):
        with caplog.at_level(logging.INFO, "ionwax.mqtt"), running(place.settings, place.topic_filter, Ledger()):
            place.publish(0, 100)
            until(lines, lambda: "nothing said")
        assert len(lines()) == 1
        assert lines()[0].startswith(place.settings.workers[0])
