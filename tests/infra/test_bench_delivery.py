"""What `bench delivery` measures with: a server that replays honestly, to both ways of receiving."""

import asyncio
import threading
import time

import pytest

from connectors.mqtt_client import MqttClient
from infra.bench.mqtt_replay import SEGMENTS, Replay
from schemas.arrivals import Arrivals
from schemas.settings import MqttSettings

MESSAGES = [(f"devices/d{n % 7}/telemetry", b"%d" % n, "text/plain" if n % 3 else None) for n in range(100)]
RECEIVE_MAX = 160
TOTAL = 3_000


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "gmqtt"])
def test_every_frame_is_received_and_acknowledged_once(wire: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, never more than the window ahead of the acknowledgements, pings answered between packets."""
    if not wire:
        monkeypatch.setattr("connectors.mqtt_client.TappedLoop", asyncio.SelectorEventLoop)
    replay = Replay(MESSAGES, TOTAL, RECEIVE_MAX)
    client = MqttClient(
        MqttSettings(url=replay.url, receive_max=RECEIVE_MAX, tick_secs=0.05), "w-0", "devices/+/telemetry"
    )
    client.start()
    replay.await_subscribed()
    received: list[tuple[str, bytes, str | None]] = []
    over = threading.Event()

    def receive() -> None:
        while not over.is_set():
            arrivals = [item for item in client.take() if isinstance(item, Arrivals)]
            assert sum(map(len, arrivals)) <= RECEIVE_MAX
            for item in arrivals:
                received.extend(zip(item.topics, item.payloads, item.content_types, strict=True))
            client.snapshot()
            client.flushed()
            time.sleep(0.002)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        assert replay.run(60) > 0
    finally:
        over.set()
        thread.join()
        client.close()
        replay.close()
    size = RECEIVE_MAX // SEGMENTS * SEGMENTS
    assert replay.total == replay.acknowledged == TOTAL
    assert received == [MESSAGES[n % size % len(MESSAGES)] for n in range(TOTAL)]
