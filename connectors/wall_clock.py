"""A machine's clock that is set back under a running process, which then ends, to be started again.

The engine asks a source again when the wall clock shows the time that the source gave (bytewax 0.21.1, ``next_awake``).
Set back by an hour, it asks none for an hour: nothing is read, and nothing says so. No source can help it, since what
was answered last counts. A new process reads the clock anew.

Clocks that are set forward, or slewed as NTP does, harm nobody here.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("ionwax.clock")

LOOK_SECS: Final = 2.0
BACK_SECS_MAX: Final = 5.0  # a shorter pause is over before a new process would read
EXIT_CLOCK: Final = 75  # EX_TEMPFAIL, as of a process that is stuck: starting again goes on

Clock = Callable[[], float]


class WallClock:
    """The wall clock against one that nobody sets."""

    def __init__(self, wall: Clock = time.time, steady: Clock = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = wall() - steady()

    def set_back_secs(self) -> float:
        """How far it was set back since the last call; 0 or less where it was not."""
        before, self._ahead = self._ahead, self._wall() - self._steady()
        return before - self._ahead


def watch(clock: WallClock | None = None, look_secs: float = LOOK_SECS) -> None:
    """End the process, with one message, when its clock is set back by more than ``BACK_SECS_MAX``."""
    watching = threading.Thread(target=_watch, args=(clock or WallClock(), look_secs), daemon=True)
    watching.start()


def _watch(clock: WallClock, look_secs: float) -> None:
    pause = threading.Event()  # never set; time.sleep is asked to the end of a time, which is what may be wrong
    while (back_secs := clock.set_back_secs()) <= BACK_SECS_MAX:
        pause.wait(look_secs)
    log.error(
        "This machine's clock was set back by %.0f s. The engine would wait until it shows the old time again, so this "
        "process ends: nothing is lost, and started again it goes on at once.",
        back_secs,
    )
    os._exit(EXIT_CLOCK)
