"""How a worker with nothing to do sleeps: not in slices of a millisecond.

The engine's loop (bytewax 0.21.1, src/worker.rs) parks a worker for 1 ms at most, however far away its next work is,
and looks then whether a signal came: some 900 wake-ups a second, 2 to 3 % of a core for nothing. The millisecond is not
ours to set. But the kernel lets a thread say how late its timers may fire (prctl(2), PR_SET_TIMERSLACK), so a worker
that has nothing to hand on says that ``SLACK_MS`` is soon enough, and takes it back with the next item.

Cost: an item that finds its worker asleep waits ``SLACK_MS`` longer, at most. What arrives by other ways than a timer
(a worker's message to another, a signal) wakes as before, and a busy worker never parks. Where there is no such call,
on macOS, nothing is done.
"""

import ctypes
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Final

SLACK_MS: Final = 10
_USUAL_NS: Final = 50_000
_SET_TIMERSLACK: Final = 29
_MIDNIGHT: Final = datetime(1970, 1, 1, tzinfo=UTC)

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_said = threading.local()  # the engine's threads may forget it, which costs a system call


def rest() -> None:
    """The calling thread's timers may fire ``SLACK_MS`` late. Threads that it starts inherit that."""
    _allow(SLACK_MS * 1_000_000)


def rouse() -> None:
    """The calling thread's timers are exact again."""
    _allow(_USUAL_NS)


def next_look(every_ms: int) -> datetime:
    """When a part that has nothing looks again: at the next multiple of ``every_ms`` that the clock shows."""
    now, every = datetime.now(UTC), timedelta(milliseconds=every_ms)
    return now + every - (now - _MIDNIGHT) % every


def _allow(slack_ns: int) -> None:
    if _libc is not None and getattr(_said, "slack_ns", None) != slack_ns:
        _said.slack_ns = slack_ns
        _libc.prctl(_SET_TIMERSLACK, ctypes.c_ulong(slack_ns), 0, 0, 0)
