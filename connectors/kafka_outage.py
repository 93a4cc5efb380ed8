"""What is said while Kafka is away: one voice for all clients of a process, now and then, and once when it is back.

Each client of librdkafka says by itself that a connection failed, and tries again every few seconds; that it is back it
does not say. A reader may still have records from before. So Kafka is back when it answers, and nobody has complained
for ``CALM_SECS``.
"""

import logging
import threading
import time
from typing import Final

log = logging.getLogger("ionwax.kafka")

SAY_SECS: Final = 15.0
CALM_SECS: Final = 4.0  # more than between two tries (kafka_client.RECONNECT_MS_MAX, and half of it)


class Outage:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: str | None = None  # those that are away
        self._heard_at = 0.0
        self._say_at = 0.0

    def lasts(self, servers: str, words: str) -> None:
        """A client could not connect, or was cut off."""
        with self._lock:
            now = time.monotonic()
            self._servers, self._heard_at = servers, now
            if now >= self._say_at:
                self._say_at = now + SAY_SECS
                log.warning("Kafka at %s: %s; trying again. Nothing is lost.", servers, words)

    def over(self) -> None:
        """Kafka has answered. Costs nothing where it was not away."""
        if self._servers is None:
            return
        with self._lock:
            if self._servers is not None and time.monotonic() - self._heard_at >= CALM_SECS:
                log.warning("Kafka at %s is back.", self._servers)
                self._servers, self._say_at = None, 0.0


OUTAGE: Final = Outage()
"""Of this process."""
