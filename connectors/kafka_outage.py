"""What is said while Kafka is away: one voice for all clients of a process, now and then, and once when it is back.

Each client of librdkafka says by itself that a connection failed, and tries again every few seconds; that it is back it
does not say. A reader may still have records from before. So Kafka is back when it answers, and nobody has complained
for ``CALM_SECS``.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("ionwax.kafka")

SAY_SECS: Final = 15.0
CALM_SECS: Final = 4.0  # more than between two tries (kafka_client.RECONNECT_MS_MAX, and half of it)
VAIN_SECS: Final = 5.0  # for so long a question that was not answered stands for those of other partitions


class Outage:
    """Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: str | None = None  # those that are away
        self._heard_at = 0.0
        self._say_at = 0.0
        self._asked_in_vain_at = -math.inf

    @property
    def is_suspected(self) -> bool:
        """A client has complained, and it has not been calm since."""
        return self._servers is not None

    def is_over(self, answers: Callable[[], bool]) -> bool:
        """Whether Kafka answers now. Asks at most once in ``VAIN_SECS`` while it does not: partitions end in a row."""
        if time.monotonic() - self._asked_in_vain_at < VAIN_SECS:
            return False
        answered = answers()
        self._asked_in_vain_at = -math.inf if answered else time.monotonic()
        return answered

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
