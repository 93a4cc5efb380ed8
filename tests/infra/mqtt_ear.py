"""A subscriber that keeps all it hears: gmqtt, so that it shares no code with the fleet."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

from gmqtt import Client, Subscription


class Ear:
    """Subscribed with QoS 1 when the ``with`` block begins; ``heard`` are (topic, payload, content type, dup)."""

    def __init__(self, url: str, topic_filter: str) -> None:
        self.heard: list[tuple[str, bytes, str | None, bool]] = []
        self._parts = urlsplit(url)
        self._filter = topic_filter
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def __enter__(self) -> "Ear":
        self._thread.start()
        assert self._ready.wait(60), "the broker did not answer a subscriber within 60 s"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    def wait_until(self, enough: Callable[[], bool], secs_max: float = 90.0) -> bool:
        """True once ``enough`` holds; False where it did not come about in time."""
        deadline = time.monotonic() + secs_max
        while not enough():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    async def _listen(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        client = Client(f"ear-{uuid.uuid4().hex[:8]}")
        client.on_message = self._on_message
        client.on_subscribe = lambda *_: self._ready.set()
        await client.connect(self._parts.hostname, self._parts.port)
        client.subscribe(Subscription(self._filter, qos=1))
        await self._stop.wait()
        await client.disconnect()

    def _on_message(self, _client: Client, topic: str, payload: bytes, _qos: int, properties: dict) -> int:
        self.heard.append((topic, payload, (properties.get("content_type") or [None])[0], bool(properties["dup"])))
        return 0
