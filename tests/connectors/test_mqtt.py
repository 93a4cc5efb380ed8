"""The MQTT source, against a real broker: acknowledged when durable, nothing lost, ticks that speak the truth."""

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.mqtt_connection import Connection
from infra.embedded.mqtt import MqttBroker
from schemas.arrivals import Tick
from schemas.errors import OperatorError
from schemas.settings import MqttSettings
from tests.conftest import free_port
from tests.connectors.mqtt_flow import DEADLINE_SECS, Ledger, run, running
from tests.connectors.mqtt_place import Place, Process, numbers, place_at, unacknowledged
from tests.connectors.mqtt_wire import Wire

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


@pytest.fixture
def place(mqtt_url: str) -> Iterator[Place]:
    yield from place_at(mqtt_url)


@pytest.fixture(params=["wire", "gmqtt"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Over the tapped wire, and as with a gmqtt that goes round it: by its own ``on_message``."""
    by_wire: set[bool] = set()
    lost = Connection.lost

    async def noticed(connection: Connection) -> None:
        by_wire.add(connection.by_wire)
        await lost(connection)

    monkeypatch.setattr(Connection, "lost", noticed)
    if request.param == "gmqtt":
        monkeypatch.setattr("connectors.mqtt_client.TappedLoop", asyncio.SelectorEventLoop)
    yield
    assert by_wire == {request.param == "wire"}


@pytest.mark.usefixtures("way")
def test_a_stop_drains_until_all_is_acknowledged(mqtt_url: str) -> None:
    """When the flow has ended under load, each durable message has had its PUBACK, and no other."""
    with Wire(mqtt_url) as wire:
        for place in place_at(wire.url):
            direct = Place(MqttSettings(url=mqtt_url), place.prefix)
            with running(place.settings, place.topic_filter, ledger := Ledger()):
                ledger.await_tick()
                direct.publish(0, 2_000)
                ledger.await_messages(500)
            assert wire.pubacks() == len(ledger.messages())
            left = unacknowledged(direct, place.settings.workers[0])
            assert numbers(0, 2_000) - left <= {*ledger.messages()}


@pytest.fixture
def process(place: Place, tmp_path: Path) -> Iterator[Process]:
    process = Process(place, tmp_path / "durable")
    process.start()
    process.await_tick()
    yield process
    process.kill()


def test_what_was_not_durable_is_not_acknowledged(place: Place, process: Process) -> None:
    """Killed in the middle of a load: what the broker does not have any more is durable, every message of it."""
    load = threading.Thread(target=place.publish, args=(0, 5_000))
    load.start()
    process.await_durable(100)
    process.kill()
    load.join()
    left = unacknowledged(place, place.settings.workers[0])
    assert left
    assert numbers(0, 5_000) - left <= {*process.durable()}


def test_killed_again_and_again_nothing_is_lost(place: Place, process: Process) -> None:
    """Kills at random moments, also before it has connected again; the session waits, and the last run has it all."""
    for n in range(5):
        place.publish(300 * n, 300 * (n + 1))
        process.await_durable(60 * n)
        process.kill()
        process.start()
    process.await_durable(1_500)
    process.await_tick()
    assert process.stop() == 0
    assert {*process.durable()} == numbers(0, 1_500)
    assert unacknowledged(place, place.settings.workers[0]) == set()


def test_sigterm_drains(mqtt_url: str, tmp_path: Path) -> None:
    """Asked to stop under load it ends by itself; what it made durable has its PUBACK, the broker has the rest."""
    with Wire(mqtt_url) as wire:
        for place in place_at(wire.url):
            direct = Place(MqttSettings(url=mqtt_url), place.prefix)
            process = Process(place, tmp_path / "durable")
            process.start()
            process.await_tick()
            devices = threading.Thread(target=direct.publish, args=(0, 10_000))
            devices.start()
            process.await_durable(100)
            assert process.stop() == 0
            devices.join(DEADLINE_SECS)
            assert wire.pubacks() == len(process.durable())
            left = unacknowledged(direct, place.settings.workers[0])
            assert left
            assert numbers(0, 10_000) - left <= {*process.durable()}


@pytest.mark.usefixtures("way")
def test_no_tick_overtakes_a_backlog(mqtt_url: str) -> None:
    """While the broker holds messages back, however few it has in flight, no tick; when it has none, ticks go on.

    A broker that refills its window late (Artemis, on a machine that is overloaded) may let one through now and then;
    without the gauge there is one in nearly each ``tick_secs``.
    """
    for place in place_at(mqtt_url, receive_max=100):
        with running(place.settings, place.topic_filter, first := Ledger()):
            first.await_tick()
        place.publish(0, 2_000)
        with running(place.settings, place.topic_filter, ledger := Ledger()):
            begun = time.monotonic()
            ledger.await_messages(2_000)
            drained_secs = time.monotonic() - begun
            ledger.await_tick()
        last = max(index for index, item in enumerate(ledger.durable) if isinstance(item, bytes))
        overtaking = sum(isinstance(item, Tick) for item in ledger.durable[:last])
        assert overtaking <= drained_secs / place.settings.tick_secs / 4


def test_a_pause_in_reading_does_not_cost_the_connection(mqtt_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full inbox and a flush of several keepalives, reading stops; the client hears enough to stay connected."""
    monkeypatch.setattr("connectors.mqtt_client.INBOX_BYTES_MAX", 10_000)
    with Wire(mqtt_url) as wire:
        for place in place_at(wire.url, keepalive_secs=1):
            ledger = Ledger()
            with running(place.settings, place.topic_filter, ledger):
                ledger.await_tick()
                ledger.flush_secs = 3.5
                Place(MqttSettings(url=mqtt_url), place.prefix).publish(0, 2_000)
                ledger.await_messages(1)
                ledger.flush_secs = 0.0
                ledger.await_messages(2_000)
            assert sorted(ledger.messages()) == sorted(numbers(0, 2_000))
            assert wire.connections == 1


@pytest.mark.usefixtures("way")
def test_several_clients_share_the_subscription(mqtt_url: str) -> None:
    """Each message reaches one of them, every client ticks, and none is lost."""
    for place in place_at(mqtt_url, clients=3):
        ledger = Ledger()
        with running(place.settings, place.topic_filter, ledger):
            for _ in range(3):
                ledger.await_tick()
            place.publish(0, 1_000)
            ledger.await_messages(1_000)
            ledger.await_tick()
        assert sorted(ledger.messages()) == sorted(numbers(0, 1_000))
        assert {item.worker for item in ledger.durable if isinstance(item, Tick)} == {*place.settings.workers}


@pytest.mark.usefixtures("way")
def test_cut_connections_lose_nothing(mqtt_url: str) -> None:
    """Connections cut under load: the client comes back by itself, the broker sends again what was not acknowledged."""
    with Wire(mqtt_url) as wire:
        for place in place_at(wire.url):
            ledger = Ledger()
            direct = Place(MqttSettings(url=mqtt_url), place.prefix)
            with running(place.settings, place.topic_filter, ledger):
                ledger.await_tick()
                for n in range(5):
                    direct.publish(400 * n, 400 * (n + 1))
                    wire.cut()
                ledger.await_messages(2_000)
                ledger.await_tick()
            assert {*ledger.messages()} == numbers(0, 2_000)
            assert wire.connections > 1


def test_a_second_process_with_the_same_client_id_stops_the_first(mqtt_broker: MqttBroker, tmp_path: Path) -> None:
    """The later one has the session; the earlier one says so and ends, where the broker tells it (MQTT 5, 0x8E)."""
    for place in place_at(mqtt_broker.url):
        later = Process(place, tmp_path / "later")

        def both(place: Place = place, later: Process = later) -> None:
            with running(place.settings, place.topic_filter, first := Ledger()):
                first.await_tick()
                later.start()
                later.await_tick()
                place.publish(0, 100)
                later.await_durable(100)

        with pytest.raises(OperatorError, match="same client id"):
            both()
        assert later.stop() == 0


def test_a_restarted_broker_is_subscribed_to_again(tmp_path: Path) -> None:
    """A broker that forgot sessions and subscriptions is found, subscribed to and heard."""
    broker = MqttBroker(tmp_path / "broker")
    broker.start()
    try:
        for place in place_at(broker.url):
            ledger = Ledger()
            with running(place.settings, place.topic_filter, ledger):
                ledger.await_tick()
                place.publish(0, 100)
                ledger.await_messages(100)
                broker.stop()
                shutil.rmtree(tmp_path / "broker" / "data", ignore_errors=True)  # where it keeps sessions on disk
                broker.start()
                ledger.await_tick()
                place.publish(100, 200)
                ledger.await_messages(200)
    finally:
        broker.stop()


def test_a_broker_that_is_away_at_start_is_one_message() -> None:
    """It says where, and what to check; it does not say the password."""
    settings = MqttSettings(url=f"mqtt://127.0.0.1:{free_port()}", username="u", password="hunter2")
    with pytest.raises(OperatorError) as raised:
        run(settings, "t/+", Ledger())
    assert "cannot connect" in str(raised.value)
    assert "mqtt.url" in str(raised.value)
    assert "hunter2" not in str(raised.value)
