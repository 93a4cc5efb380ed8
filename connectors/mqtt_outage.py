"""What is said while a broker is away: that it went, now and then that it stays away, and that it is back.

The waiting itself is ``mqtt_client``'s; a broker is waited for as long as it takes.
"""

import logging
import time
from typing import Final

from connectors.mqtt_address import Address
from schemas.errors import OperatorError

log = logging.getLogger("ionwax.mqtt")

SAY_SECS: Final = 30.0
FIRST_SAY_SECS: Final = 10.0  # most outages are over by then
SHORT_LIVED_MAX: Final = 5  # in a row, before that is said; not every broker says that a session was taken over


class Outage:
    """Of one client's connections, from the first that is lost on."""

    def __init__(self, address: Address, worker: str) -> None:
        self._address = address
        self._worker = worker
        self._lost_at: float | None = None
        self._say_at = 0.0

    def lost(self, short_lived: int) -> None:
        """A connection is lost; ``short_lived`` ones in a row were lost within seconds."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            self._say_at = self._lost_at + FIRST_SAY_SECS
        if short_lived < SHORT_LIVED_MAX:
            words = "lost its connection, and tries again. What was not acknowledged comes again."
            log.warning("MQTT broker at %s: %s %s", self._address, self._worker, words)
        else:
            words = "loses each connection as soon as it has it. Does another process use this client id"
            log.error("MQTT broker at %s: %s %s (mqtt.client_id)?", self._address, self._worker, words)

    def lasts(self, away: OperatorError) -> None:
        """An attempt to connect failed."""
        if (now := time.monotonic()) >= self._say_at:
            self._say_at = now + SAY_SECS
            log.warning("%s %s keeps trying.", away, self._worker)

    def over(self) -> None:
        """There is a connection, and it is subscribed."""
        lost_at, self._lost_at = self._lost_at, None
        if lost_at is not None:
            secs = time.monotonic() - lost_at
            log.warning("MQTT broker at %s: %s is back after %.1f s.", self._address, self._worker, secs)
