"""A corner of an MQTT broker for one test: publish to it, receive in a process to be killed, see what is left."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gmqtt import Client

from schemas.settings import MqttSettings
from tests.connectors.mqtt_devices import Sent, publish
from tests.connectors.mqtt_flow import DEADLINE_SECS, until

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """A corner of the broker that belongs to one test."""

    settings: MqttSettings
    prefix: str

    @property
    def topic_filter(self) -> str:
        return f"{self.prefix}/+"

    def messages(self, start: int, end: int) -> list[Sent]:
        return [Sent(f"{self.prefix}/{n % 7}", b"%d" % n) for n in range(start, end)]

    def publish(self, start: int, end: int) -> None:
        publish(self.settings.url, self.messages(start, end), f"devices-{self.prefix}")


def numbers(start: int, end: int) -> set[bytes]:
    return {b"%d" % n for n in range(start, end)}


def place_at(url: str, **more: object) -> Iterator[Place]:
    """A place with a client id of its own, whose session is forgotten afterwards."""
    prefix = uuid.uuid4().hex[:12]
    settings = MqttSettings(url=url, client_id=f"test-{prefix}", tick_secs=0.1, session_expiry_secs=600, **more)  # type: ignore[arg-type]
    yield Place(settings, prefix)


def unacknowledged(place: Place, worker: str) -> set[bytes]:
    """What the broker still has for ``worker``: all that it sends before a message published now."""

    async def collect() -> set[bytes]:
        client = Client(worker, clean_session=False, session_expiry_interval=0)
        found: set[bytes] = set()
        arrived = asyncio.Event()

        def on_message(_client: Client, _topic: str, payload: bytes, *_more: object) -> int:
            if payload == b"last":
                arrived.set()
            else:
                found.add(payload)
            return 0

        client.on_message = on_message
        host, port = place.settings.url.removeprefix("mqtt://").split(":")
        await client.connect(host, int(port))
        await asyncio.to_thread(publish, place.settings.url, [Sent(f"{place.prefix}/0", b"last")], "last")
        await asyncio.wait_for(arrived.wait(), DEADLINE_SECS)
        await client.disconnect()
        return found

    return asyncio.run(collect())


class Process:
    """A process that receives for ``place`` and can be killed; what it made durable is in its file."""

    def __init__(self, place: Place, path: Path) -> None:
        self._place = place
        self._path = path
        self._path.touch()
        self._running: subprocess.Popen[bytes] | None = None

    def durable(self) -> list[bytes]:
        """The messages; a line that a kill cut short does not count."""
        return [
            line[:-1] for line in self._path.read_bytes().splitlines(True) if line.endswith(b"\n") and line != b"tick\n"
        ]

    def start(self) -> None:
        settings, module = self._place.settings, "tests.connectors.mqtt_process"
        arguments = [settings.url, settings.client_id, self._place.topic_filter, str(self._path)]
        self._running = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT)

    def await_durable(self, count: int) -> None:
        until(lambda: len({*self.durable()}) >= count, lambda: f"{len({*self.durable()})} of {count} messages")

    def await_tick(self) -> None:
        ticks = self._path.read_bytes().count(b"tick")
        until(lambda: self._path.read_bytes().count(b"tick") > ticks, lambda: "no tick")

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._running is not None
        self._running.terminate()
        return self._running.wait(DEADLINE_SECS)
