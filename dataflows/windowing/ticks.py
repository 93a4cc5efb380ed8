"""Ticks: what each ingest worker says of itself, and how far all of them reach together.

Rule: only configured workers count, and each from its first tick on. A tick reaches min(its own time, its append time).
"""

from collections.abc import Iterable, Mapping

from dataflows.windowing.spans import LONG_AGO


class Ticks:
    """Each configured ingest worker's highest tick."""

    def __init__(self, workers: Iterable[str], highest: Mapping[str, int]) -> None:
        self._workers = frozenset(workers)
        self._highest = {worker: time for worker, time in highest.items() if worker in self._workers}

    @property
    def highest(self) -> dict[str, int]:
        return dict(self._highest)

    @property
    def level(self) -> int:
        """The lowest of the highest ticks; ``LONG_AGO`` before the first."""
        return min(self._highest.values(), default=LONG_AGO)

    def hear(self, worker: str, time: int) -> int:
        """Take note of a tick and answer with the level. Ticks of others mean nothing."""
        if worker in self._workers:
            self._highest[worker] = max(self._highest.get(worker, LONG_AGO), time)
        return self.level
