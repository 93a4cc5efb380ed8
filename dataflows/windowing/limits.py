"""Which readings are refused by their time: too far ahead of, or behind, their record's append time.

Rule: a record is judged by the limits in force when it was first accounted for, for ever. They are kept with the
progress as ranges of offsets, so that a resume after a change of settings refills windows with the same readings.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from dataflows.windowing.spans import FOREVER_MS, Spans
from schemas.progress import Judged

Ints = npt.NDArray[np.int64]


class Verdict(IntEnum):
    """What the limits say of a record; the names of the last two, in lower case, are reasons of the closed set."""

    ACCEPTED = 0
    TIMESTAMP_IN_FUTURE = 1
    TIMESTAMP_TOO_OLD = 2

    @property
    def reason(self) -> str:
        return self.name.lower()


class Limits:
    """Limits by offset: those stored with the progress, and from ``position`` on those of the settings."""

    def __init__(self, judged: Sequence[Judged], position: int, spans: Spans) -> None:
        self._entries = [entry for entry in judged if entry.offset < position]
        now = Judged(position, spans.clock_skew_max, spans.event_age_max)
        if not self._entries or not _same(self._entries[-1], now):
            self._entries.append(now)

    def judge(self, offsets: Ints, appends: Ints, events: Ints) -> npt.NDArray[np.int8]:
        """A ``Verdict`` a record. ``offsets`` ascend; those below the first entry are judged by it."""
        near = np.clip(appends, -FOREVER_MS, FOREVER_MS)  # a time gone wild must not wrap round
        if len(self._entries) == 1:
            skew: Ints | int = self._entries[0].clock_skew_max_ms
            age: Ints | int = self._entries[0].event_age_max_ms
        else:
            starts = np.array([entry.offset for entry in self._entries], np.int64)
            which = np.maximum(np.searchsorted(starts, offsets, side="right") - 1, 0)
            skew = np.array([entry.clock_skew_max_ms for entry in self._entries], np.int64)[which]
            age = np.array([entry.event_age_max_ms for entry in self._entries], np.int64)[which]
        verdicts = np.zeros(len(offsets), np.int8)
        verdicts[events > near + skew] = Verdict.TIMESTAMP_IN_FUTURE
        verdicts[events < near - age] = Verdict.TIMESTAMP_TOO_OLD
        return verdicts

    def since(self, offset: int) -> tuple[Judged, ...]:
        """The entries by which records from ``offset`` on are judged."""
        while len(self._entries) > 1 and self._entries[1].offset <= offset:
            del self._entries[0]
        return tuple(self._entries)


def _same(a: Judged, b: Judged) -> bool:
    return (a.clock_skew_max_ms, a.event_age_max_ms) == (b.clock_skew_max_ms, b.event_age_max_ms)
