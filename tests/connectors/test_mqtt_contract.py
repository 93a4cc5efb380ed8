"""The MQTT source under the contract of every connector: numbers go from the broker to what a flow has flushed.

The flow is one part of the source, called as the engine calls it: batches, ``snapshot``, flush, the next batch.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from connectors import stopping
from connectors.mqtt import MqttPart, MqttSource
from infra.embedded.mqtt import Login, MqttBroker
from schemas.arrivals import Arrivals
from schemas.errors import OperatorError
from schemas.settings import MqttSettings
from tests.connectors.contract import Contract
from tests.connectors.mqtt_devices import Sent, publish
from tests.connectors.mqtt_flow import DEADLINE_SECS, until
from tests.connectors.mqtt_place import Place, place_at
from tests.connectors.mqtt_wire import Wire

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


class Received:
    """A source behind a wire, its devices beside it. What is safe is flushed, and its PUBACK has gone out."""

    exactly_once = False

    def __init__(self, broker_url: str, way: Wire, place: Place, folder: Path) -> None:
        self._broker_url = broker_url
        self._way = way
        self._place = place
        self._folder = folder
        self._flushed: list[int] = []
        self._start()

    def _start(self) -> None:
        self._held: list[int] = []
        source = MqttSource(self._place.settings, self._place.topic_filter)
        self._part: MqttPart = source.build_part("mqtt", source.list_parts()[0], None)

    def carry(self, numbers: Sequence[int]) -> None:
        self._publish(numbers)
        self._flush(numbers)

    def crash(self, numbers: Sequence[int]) -> None:
        self._publish(numbers)
        self._receive(numbers)
        with self.away():
            self._part.close()  # it cannot say a word any more
        self._start()
        self._flush(numbers)

    def arrived(self) -> list[int]:
        return list(self._flushed)

    def away(self) -> AbstractContextManager[None]:
        return self._way.away()

    def fall_silent(self) -> None:
        """The broker hears nothing any more, and the connection stands."""
        self._way.mute = True

    def carry_on(self) -> None:
        """Ask for more until the source ends, by what it raises."""
        deadline = time.monotonic() + DEADLINE_SECS
        while time.monotonic() < deadline:
            self._take()

    def refused(self) -> str:
        broker = MqttBroker(self._folder, login=Login("ingest", "correct-horse"))
        broker.start()
        try:
            wrong = MqttSettings(url=broker.url, username="ingest", password="hunter2")
            with pytest.raises(OperatorError) as refused:
                MqttSource(wrong, "t/+").build_part("mqtt", "ingest-0", None)
        finally:
            broker.stop()
        assert "hunter2" not in str(refused.value)
        return str(refused.value)

    def close(self) -> None:
        self._part.close()

    def _publish(self, numbers: Sequence[int]) -> None:
        sent = [Sent(f"{self._place.prefix}/{number}", b"%d" % number) for number in numbers]
        publish(self._broker_url, sent, f"devices-{self._place.prefix}")

    def _flush(self, numbers: Sequence[int]) -> None:
        before = self._way.pubacks()
        self._receive(numbers)
        self._part.snapshot()
        self._flushed += self._held
        self._held = []
        self._take()
        until(lambda: self._way.pubacks() >= before + len(numbers), lambda: f"{self._way.pubacks()} PUBACKs")

    def _receive(self, numbers: Sequence[int]) -> None:
        """Be handed the numbers. As the engine, it asks again and again."""
        deadline = time.monotonic() + DEADLINE_SECS
        while not set(numbers) <= {*self._held}:
            assert time.monotonic() < deadline, f"{numbers} did not come"
            self._take()
            time.sleep(0.005)

    def _take(self) -> None:
        for item in self._part.next_batch():
            if isinstance(item, Arrivals):
                self._held += [int(payload) for payload in item.payloads]


@pytest.fixture
def subject(mqtt_url: str, tmp_path: Path) -> Iterator[Received]:
    with Wire(mqtt_url) as way:
        for place in place_at(way.url):
            received = Received(mqtt_url, way, place, tmp_path)
            yield received
            received.close()


class TestMqtt(Contract):
    """See ``Contract``."""


def test_a_broker_that_falls_silent_as_ingest_stops_is_away(subject: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has noticed yet: the connection stands, all is acknowledged, and the broker may never have read it."""
    monkeypatch.setattr("connectors.mqtt_connection.LAST_ANSWER_SECS_MAX", 0.5)
    subject.carry([1])
    subject.fall_silent()
    stopping.request()
    try:
        with pytest.raises(OperatorError, match="Asked to stop while the MQTT broker"):
            subject.carry_on()
    finally:
        stopping.forget()
