"""Alerts over MQTT, under the contract of every connector; and what is not waited for."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from connectors import mqtt_alerts
from connectors.mqtt_alerts import AlertSender
from infra.embedded.mqtt import Login, MqttBroker
from schemas.errors import OperatorError
from schemas.flag_records import Alert
from schemas.settings import MqttSettings
from tests.conftest import free_port
from tests.connectors.contract import Contract
from tests.connectors.mqtt_wire import Wire
from tests.infra.mqtt_ear import Ear

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


class Sent:
    """A sender over a wire that can be cut. What is safe is what the broker acknowledged."""

    exactly_once = False

    def __init__(self, prefix: str, way: Wire, ear: Ear, folder: Path) -> None:
        self._prefix, self._way, self._ear, self._folder = prefix, way, ear, folder

    def carry(self, numbers: Sequence[int]) -> None:
        alerts = [Alert(f"{self._prefix}/{number}", b"%d" % number, 0) for number in numbers]
        AlertSender(MqttSettings(url=self._way.url), f"{self._prefix}-alerts").send(alerts)

    def crash(self, numbers: Sequence[int]) -> None:
        self.carry(numbers[:1])  # and dies before its caller has committed: all of it is sent again
        self.carry(numbers)

    def arrived(self) -> list[int]:
        """What a subscriber has heard, once it hears something that is sent to it after all that."""
        end = uuid.uuid4().hex.encode()
        url = self._ear._parts.geturl()
        AlertSender(MqttSettings(url=url), f"{self._prefix}-end").send([Alert(f"{self._prefix}/end", end, 0)])
        assert self._ear.wait_until(lambda: end in {payload for _, payload, _, _ in self._ear.heard})
        return [int(payload) for topic, payload, _, _ in self._ear.heard if not topic.endswith("/end")]

    def away(self) -> AbstractContextManager[None]:
        return self._way.away()

    def refused(self) -> str:
        broker = MqttBroker(self._folder, login=Login("alerts", "correct-horse"))
        broker.start()
        try:
            wrong = MqttSettings(url=broker.url, username="alerts", password="hunter2")
            with pytest.raises(OperatorError) as refused:
                AlertSender(wrong, "alerts").send([Alert("alerts/a", b"1", 0)])
        finally:
            broker.stop()
        assert "hunter2" not in str(refused.value)
        return str(refused.value)


@pytest.fixture
def subject(mqtt_url: str, server_data: Path) -> Iterator[Sent]:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    with Wire(mqtt_url) as way, Ear(mqtt_url, f"{prefix}/+") as ear:
        yield Sent(prefix, way, ear, server_data / prefix)


class TestAlerts(Contract):
    """See ``Contract``."""


def test_a_hundred_alerts_arrive_once_each(subject: Sent) -> None:
    """More than are ever in flight at once; in which order, the broker decides."""
    subject.carry(range(100))
    assert sorted(subject.arrived()) == list(range(100))


def test_a_broker_that_stays_away_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time it is waited for, with what to do; nothing was sent."""
    monkeypatch.setattr(mqtt_alerts, "OUTAGE_SECS_MAX", 1.0)
    sender = AlertSender(MqttSettings(url=f"mqtt://127.0.0.1:{free_port()}"), "alerts")
    with pytest.raises(OperatorError, match=r"cannot connect .* 1 alerts waited .* flags\.alerts: false"):
        sender.send([Alert("alerts/a", b"1", 0)])
    assert sender.sent == 0


def test_without_alerts_nothing_connects() -> None:
    """Most epochs have none, and the broker may be away then."""
    AlertSender(MqttSettings(url=f"mqtt://127.0.0.1:{free_port()}"), "alerts").send([])
