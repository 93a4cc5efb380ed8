"""What is said while Kafka is away: one voice for all clients of a process, now and then, and once when it is back.

librdkafka says that a connection failed, and each client says so; a connection that was idle and is hung up sounds the
same. So only what goes on is an outage: complaints over ``SOME_SECS``, within ``ONE_SECS_MAX`` of each other.
"""

import logging
import threading
import time
from typing import Final

log = logging.getLogger("ionwax.kafka")

SAY_SECS: Final = 15.0
SOME_SECS: Final = 1.0  # a reader may still have records from before
ONE_SECS_MAX: Final = 45.0  # between two vain tries to connect: a pause, and 30 s until one is given up


class Outage:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers = ""
        self._began_at: float | None = None
        self._heard_at = 0.0
        self._say_at = 0.0

    def lasts(self, servers: str, words: str) -> None:
        """A client could not connect, or was cut off."""
        with self._lock:
            now = time.monotonic()
            if self._began_at is None or now - self._heard_at > ONE_SECS_MAX:
                self._servers, self._began_at = servers, now
            self._heard_at = now
            if now >= self._say_at:
                self._say_at = now + SAY_SECS
                log.warning("Kafka at %s: %s; trying again. Nothing is lost.", servers, words)

    def over(self) -> None:
        """Kafka has answered. Costs nothing where it was not away."""
        if self._began_at is None:
            return
        with self._lock:
            now, began_at = time.monotonic(), self._began_at
            if began_at is None:
                return
            if now - self._heard_at > ONE_SECS_MAX:
                self._began_at = None
            elif self._heard_at - began_at >= SOME_SECS:
                self._began_at, self._say_at = None, 0.0
                log.warning("Kafka at %s is back after %.1f s.", self._servers, now - began_at)


OUTAGE: Final = Outage()
"""Of this process."""
