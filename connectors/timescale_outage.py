"""A database that is away while a flow runs: how long it is waited for, and what is said meanwhile."""

import logging
import random
import time
from typing import Final

import psycopg

from connectors import stopping, timescale_connection
from connectors.health import HEALTH
from schemas.errors import OperatorError, ServerAway

log = logging.getLogger("ionwax.timescale")

WAIT_SECS_MIN: Final = 0.1
WAIT_SECS_MAX: Final = 5.0
LOOK_SECS: Final = 0.2  # how soon a request to stop is noticed
STOP_SECS: Final = 4.0  # how long a process that was asked to stop still tries; with a connection's 5 s below 10
SAY_SECS: Final = 30.0
SERVER: Final = "the database"


class Outage:
    """The tries of one transaction, from its first failure on. Says that it began, that it lasts, and that it is "
    "over."""

    def __init__(self, conninfo: str, max_secs: float) -> None:
        self._conninfo = conninfo
        self._max_secs = max_secs
        self._began_at: float | None = None
        self._say_at = 0.0
        self._stop_at: float | None = None
        self._wait_secs = WAIT_SECS_MIN

    @property
    def began(self) -> bool:
        """Whether a try has failed."""
        return self._began_at is not None

    def wait(self, error: psycopg.Error) -> None:
        """Wait before the next try, each time longer. Raises ``OperatorError`` where there is to be none."""
        now = time.monotonic()
        if self._began_at is None:
            self._began_at = now
        HEALTH.away(SERVER, self._max_secs)
        lasts = now - self._began_at
        if lasts >= self._max_secs:
            raise self._ended(f"and has been for {lasts:.0f} s, longer than database.outage_max_secs", error)
        if now >= self._say_at:
            self._say_at = now + SAY_SECS
            log.warning(
                "%s Nothing is lost; trying again for %.0f s.",
                timescale_connection.unreachable(self._conninfo, error),
                self._max_secs - lasts,
            )
        self._sleep(now + min(self._wait_secs * random.uniform(0.75, 1.25), self._max_secs - lasts), error)
        self._wait_secs = min(2 * self._wait_secs, WAIT_SECS_MAX)

    def over(self) -> None:
        """The transaction is committed."""
        if self._began_at is not None:
            HEALTH.back(SERVER)
            log.warning("The database is back after %.1f s; nothing was lost.", time.monotonic() - self._began_at)

    def _sleep(self, until: float, error: psycopg.Error) -> None:
        while (now := time.monotonic()) < until:
            if stopping.requested():
                self._stop_at = self._stop_at or now + STOP_SECS
                if now >= self._stop_at:
                    raise self._ended("while this process was asked to stop", error)
            time.sleep(min(LOOK_SECS, until - now))

    def _ended(self, why: str, error: psycopg.Error) -> OperatorError:
        return ServerAway(
            f"The database is away {why}. Nothing is half-written; what was not committed is read again at the next "
            f"start. {timescale_connection.unreachable(self._conninfo, error)}"
        )
