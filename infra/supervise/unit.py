"""Processes that live and die together, and are started again together, with growing pauses.

Rule: driven by ``tick``; it never waits. Exit codes decide (``connectors.stopping``): an operator's error is final, a
server that is away is tried again for as long as it takes, anything else so many times in a row.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from connectors.stopping import EXIT_AWAY, EXIT_OPERATOR
from infra.supervise.backoff import Backoff
from infra.supervise.member import GRACE_SECS, Member

EXIT_GAVE_UP: Final = 1
START_SECS_MAX: Final = 120.0  # a claim may wait 75 s for a writer that hangs (connectors.timescale_connection)
ENDING_SECS_MAX: Final = GRACE_SECS + 2.0


class Unit:
    """``start`` makes its processes; ``say`` hears what happens to it. ``exit_code`` is None until it is over."""

    def __init__(
        self, start: Callable[[], Sequence[Member]], stalled_secs_max: float, say: Callable[[str], None]
    ) -> None:
        self._start = start
        self._stalled_secs_max = stalled_secs_max
        self._say = say
        self._backoff = Backoff()
        self._members: Sequence[Member] = ()
        self._began = 0.0
        self._ending_until: float | None = None
        self._start_at: float | None = time.monotonic()
        self._stopping = False
        self.exit_code: int | None = None

    def tick(self) -> None:
        """Look, and do what is due."""
        now = time.monotonic()
        if self.exit_code is not None:
            return
        if self._start_at is not None:
            if self._stopping:
                self.exit_code = 0
            elif now >= self._start_at:
                self._start_at, self._began = None, now
                self._members = self._start()
        elif self._ending_until is None:
            self._look(now)
        elif all(member.exit_code is not None for member in self._members):
            self._ended(now)
        elif now >= self._ending_until:
            self.kill()

    def stop(self) -> None:
        """Ask all to drain, once; ``tick`` until ``exit_code`` is there."""
        if not self._stopping:
            self._stopping = True
            if self._members and self._ending_until is None:
                self._end(time.monotonic())

    def kill(self) -> None:
        for member in self._members:
            member.kill()

    def _look(self, now: float) -> None:
        for member in self._members:
            if (code := member.exit_code) is not None:
                member.hear_out()
                if code != EXIT_OPERATOR:
                    self._say(f"{member.name} {_ended_with(code)}")
                self._end(now)
                return
            limit_secs = self._stalled_secs_max if member.watch.worked else max(self._stalled_secs_max, START_SECS_MAX)
            if (stalled_secs := member.watch.stalled_secs) > limit_secs:
                self._say(f"{member.name}: no epoch has ended for {stalled_secs:.0f} s, and it waits for no server")
                member.kill()
                self._end(now)
                return

    def _end(self, now: float) -> None:
        self._ending_until = now + ENDING_SECS_MAX
        for member in self._members:
            member.ask_to_stop()

    def _ended(self, now: float) -> None:
        for member in self._members:
            member.hear_out()
        codes = [member.exit_code or 0 for member in self._members]
        self._ending_until, self._members = None, ()
        self._backoff = self._backoff.after(now - self._began)
        if EXIT_OPERATOR in codes or self._stopping:
            self.exit_code = of_all(codes)
        elif self._backoff.exhausted and EXIT_AWAY not in codes:
            self._say(f"failed {self._backoff.failures} times in a row: giving up")
            self.exit_code = EXIT_GAVE_UP
        else:
            wait_secs = self._backoff.wait_secs(random.random())
            self._start_at = now + wait_secs
            self._say(f"starting again in {wait_secs:.1f} s")


def of_all(codes: Sequence[int]) -> int:
    """The status of several that ended together: the one that says most of what to do."""
    return next((code for code in (EXIT_OPERATOR, EXIT_AWAY) if code in codes), max(codes))


def _ended_with(code: int) -> str:
    if code == 0:
        return "ended, though nobody asked it to"
    return f"was killed by signal {code - 128}" if code > 128 else f"ended with code {code}"
