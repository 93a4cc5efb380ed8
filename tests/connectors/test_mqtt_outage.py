"""A broker that is away while ingest runs: nothing lost, nobody needed, bounded memory, a log that can be read."""

import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.mqtt import MqttSource
from connectors.mqtt_outage import SAY_SECS
from infra.embedded import mosquitto
from infra.embedded.mqtt import MqttBroker
from infra.embedded.server import Server
from schemas.arrivals import Arrivals, Tick
from tests.connectors.mqtt_flow import Ledger, running
from tests.connectors.mqtt_place import Place, numbers, place_at

RECEIVE_MAX = 1_000
# mosquitto 2.0.11 goes beyond the window under a backlog. Reading is paused then, but what one read brought is there.
OVERSHOOT = 262_144 // 22  # asyncio reads 256 KiB at most; a packet here has 22 bytes at least
OUTAGE_SECS = 3.0  # some attempts to connect; `thorough` takes half a minute, and then four


def broker(kind: str, folder: Path) -> Server:
    return MqttBroker(folder) if kind == "artemis" else mosquitto.Mosquitto(folder)


def outages() -> list[float]:
    """How long the broker is away, by the profile of the property tests."""
    from hypothesis import settings

    return [30.0, 240.0] if settings.default is settings.get_profile("thorough") else [OUTAGE_SECS]


@pytest.fixture(
    params=[
        pytest.param("artemis", marks=pytest.mark.embedded),
        pytest.param(
            "mosquitto",
            marks=[
                pytest.mark.contract,
                pytest.mark.skipif(mosquitto.program() is None, reason="mosquitto is not installed"),
            ],
        ),
    ]
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    made = broker(request.param, tmp_path / "broker")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def place(server: Server) -> Iterator[Place]:
    yield from place_at(server.url, receive_max=RECEIVE_MAX)  # type: ignore[attr-defined]


@pytest.mark.parametrize("forgets", [False, True], ids=["with its sessions", "having forgotten all"])
def test_an_outage_needs_no_hand(server: Server, place: Place, forgets: bool, caplog: pytest.LogCaptureFixture) -> None:
    """What was acknowledged to devices before and after is durable; with its sessions, what waited as well."""
    for away_secs in outages():
        ledger = Ledger()
        with caplog.at_level(logging.WARNING, "ionwax"), running(place.settings, place.topic_filter, ledger):
            ledger.await_tick()
            place.publish(0, 500)
            ledger.await_messages(500)
            server.stop()
            if forgets:
                server.erase()
            threading.Event().wait(away_secs)  # the broker's absence is what is tested: nothing to ask meanwhile
            ticks = sum(isinstance(item, Tick) for item in ledger.durable)
            server.start()
            ledger.await_tick()
            place.publish(500, 1_000)
            ledger.await_messages(1_000)
        assert {*ledger.messages()} == numbers(0, 1_000)
        assert ticks
        said = [line for record in caplog.records if (line := record.getMessage()).startswith("MQTT broker")]
        assert re.search(r"lost its connection, and tries again", said[0])
        back = re.search(r"is back after (\d+\.\d) s", said[-1])
        assert back is not None, said
        assert all("keeps trying" in line for line in said[1:-1]), said
        assert len(said) <= 3 + float(back[1]) // SAY_SECS, said  # now and then, not at each attempt
        caplog.clear()


def test_a_backlog_of_an_outage_is_received_in_bounded_memory(place: Place) -> None:
    """Sessions outlive the process: what devices sent meanwhile comes, and of what goes beyond the window one read."""
    with running(place.settings, place.topic_filter, first := Ledger()):
        first.await_tick()
    place.publish(0, 20_000)
    held: list[int] = []
    part = MqttSource(place.settings, place.topic_filter).build_part("mqtt", place.settings.workers[0], None)
    received: set[bytes] = set()
    deadline = time.monotonic() + 90
    while len(received) < 20_000:
        assert time.monotonic() < deadline, f"{len(received)} of 20,000"
        time.sleep(0.05)  # as an epoch whose flush takes a while: more comes than is acknowledged
        items = [item for item in part.next_batch() if isinstance(item, Arrivals)]
        held.append(sum(map(len, items)))
        received |= {payload for item in items for payload in item.payloads}
        part.snapshot()
    part.close()
    assert received == numbers(0, 20_000)
    assert max(held) <= RECEIVE_MAX + OVERSHOOT
