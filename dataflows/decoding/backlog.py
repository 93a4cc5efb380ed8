"""Whether an ingest worker's ticks can be believed: is what it receives of now, or of a while ago?

A tick says that a worker is not behind, and closes windows. A broker, a bridge or a device that was offline may hand
over a backlog more slowly than it is acknowledged; then no receive window is ever full, though the worker is behind
all the same. What tells is the readings' own time. Where most messages since the last tick happened longer ago than the
allowed lateness, a tick would only make them late: it is left out, and the windows close by quiet or patience instead.

Most, and not one: no single wrong clock decides. Where devices always report later than the allowed lateness, their
worker never ticks.
"""

from collections import Counter


class Backlog:
    """Fed with what each worker received; asked at each of its ticks. Pure."""

    def __init__(self) -> None:
        self._messages: Counter[str] = Counter()
        self._old: Counter[str] = Counter()

    def heard(self, worker: str, messages: int, old: int) -> None:
        """``messages`` of which ``old`` happened longer before their arrival than the allowed lateness."""
        self._messages[worker] += messages
        self._old[worker] += old

    def holds_back(self, worker: str) -> bool:
        """Whether the worker's tick is to be left out. Begins to count anew."""
        messages, old = self._messages.pop(worker, 0), self._old.pop(worker, 0)
        return 2 * old > messages
