"""A second process with our client id, on brokers that do not say that a session was taken over."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors import mqtt_client
from connectors.mqtt_client import MqttClient
from infra.embedded import mosquitto
from schemas.arrivals import Arrivals
from schemas.errors import OperatorError
from schemas.settings import MqttSettings
from tests.connectors.mqtt_place import Place, place_at
from tests.connectors.mqtt_wire import Wire

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(mosquitto.program() is None, reason="mosquitto is not installed"),
]

DEADLINE_SECS = 60.0


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A Mosquitto of its own. 2.0.11 only hangs up on the client whose session another one takes over."""
    broker = mosquitto.Mosquitto(tmp_path / "mosquitto", persistence=False)
    broker.start()
    yield broker.url
    broker.stop()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_client, "PAUSE_SECS_MAX", 0.5)


@contextmanager
def client_at(place: Place) -> Iterator[MqttClient]:
    client = MqttClient(place.settings, place.settings.workers[0], place.topic_filter)
    client.start()
    yield client
    client.close()


def failure_of(client: MqttClient) -> OperatorError | None:
    try:
        client.take()
    except OperatorError as error:
        return error
    return None


def test_of_two_copies_one_stops_and_the_other_goes_on(url: str) -> None:
    """The one that stops says what to do; the other then receives what is published."""
    for place in place_at(url):
        with client_at(place) as first, client_at(place) as second:
            deadline = time.monotonic() + DEADLINE_SECS
            while not (failures := {id(c): e for c in (first, second) if (e := failure_of(c))}):
                assert time.monotonic() < deadline, "they take turns for ever"
                time.sleep(0.01)
            (stopped,) = failures
            assert "same client id" in str(failures[stopped])
            assert "mqtt.client_id" in str(failures[stopped])
            left = second if stopped == id(first) else first
            place.publish(0, 10)
            received: set[bytes] = set()
            while len(received) < 10:
                assert time.monotonic() < deadline, "the one that is left receives nothing"
                received |= {p for item in left.take() if isinstance(item, Arrivals) for p in item.payloads}
                time.sleep(0.01)


def test_a_network_that_cuts_every_connection_is_no_rival(url: str) -> None:
    """Ours and the witness's are lost together, however often: the client comes back."""
    with Wire(url) as wire:
        for place in place_at(wire.url):
            with client_at(place) as client:
                for count in range(2, 12):
                    seen = wire.connections
                    wire.cut()
                    deadline = time.monotonic() + DEADLINE_SECS
                    while wire.connections <= seen:
                        assert failure_of(client) is None
                        assert time.monotonic() < deadline, f"not back after cut {count}"
                        time.sleep(0.01)
                Place(MqttSettings(url=url), place.prefix).publish(0, 10)
                while not client.take():
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
