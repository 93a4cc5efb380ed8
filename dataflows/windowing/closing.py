"""When windows close: the rule, its state, and its evaluation for many records at once.

Rule: windows close in order, at records, and each record is asked after it was judged. The next window [E − length, E)
closes where, over the records so far and with B = E + allowed lateness,

- *ticks*: every configured ingest worker that has ever ticked has ticked at or past B (none at all: never); or
- *quiet*: some accepted reading at or past B was appended ``quiet`` or more before this record, and so was every
  reading of the window, which holds some; or
- *patience*: some accepted reading at or past B was appended ``patience`` or more before this record.

A reading is at min(event time, append time). Before anything has closed, the next window is the earliest that holds a
reading.

Guarantee: the answer at a record depends on the records up to it and on the settings, not on how they were cut into
batches. The state is one number a window and one a boundary, both a fold over the rows of open windows.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dataflows.windowing.columns import Ints
from dataflows.windowing.records import Records
from dataflows.windowing.spans import LONG_AGO, NEVER, Spans

SPREAD_MAX = 4096  # windows; keys further apart are sorted instead of counted


class Step(NamedTuple):
    """At this record (an index) the windows from ``start`` to ``until`` closed, one after the other."""

    record: int
    start: int
    until: int


class Closing:
    """The closing rule's state for one partition; ``closed_until`` never goes back."""

    def __init__(self, spans: Spans, closed_until: int | None) -> None:
        self.closed_until = closed_until
        self._spans = spans
        self._latest: dict[int, int] = {}  # open window → latest append time of its readings
        self._earliest: dict[int, int] = {}  # boundary → earliest append time of readings at or past it, below the next

    def refill(self, records: Records) -> None:
        """Records that were already asked: they count towards the state and close nothing."""
        self._fold(records, 0, len(records.append))

    def advance(self, records: Records) -> Sequence[Step]:
        """Ask each record; ascending by index. Cost: some passes over the records, and one scan a step."""
        return list(self._steps(records))

    def _steps(self, records: Records) -> Iterator[Step]:
        low, count = 0, len(records.append)
        stride = max(count, 1)
        while low < count:
            high, window = self._stretch(records, low, min(count, low + stride))
            index = None if window is None else self._first(records, low, high, window)
            if index is None:
                self._fold(records, low, high)
            else:
                high = index + 1
                self._fold(records, low, high)
                yield Step(index, *self._close(int(records.append[index]), int(records.level[index])))
            # Where windows close often, scanning all the rest for each would be quadratic.
            low, stride = high, max(64, 2 * (high - low))

    def _stretch(self, records: Records, low: int, high: int) -> tuple[int, int | None]:
        """The next window, and up to which record (at most ``high``) it stays the next if nothing closes."""
        if self.closed_until is not None:
            return high, self.closed_until
        windows = records.window[low:high]
        known = min(self._latest, default=NEVER)
        lowest = np.minimum(np.minimum.accumulate(np.where(windows == LONG_AGO, NEVER, windows)), known)
        changes = np.flatnonzero(lowest != lowest[0])
        stays = low + int(changes[0]) if len(changes) else high
        return stays, None if lowest[0] == NEVER else int(lowest[0])

    def _first(self, records: Records, low: int, high: int, window: int) -> int | None:
        """The first record in [low, high) at which ``window`` closes."""
        spans, append, level = self._spans, records.append[low:high], records.level[low:high]
        end = window + spans.length
        boundary = end + spans.allowed_lateness
        known = min((first for reached, first in self._earliest.items() if reached >= end), default=NEVER)
        oldest, newest = int(np.min(append)), int(np.max(append))
        if (
            np.max(level) < boundary
            and newest < max(self._latest.get(window, oldest), min(known, oldest)) + spans.quiet
            and newest < min(known, oldest) + spans.patience
        ):
            return None  # as in most slices; the exact answer costs ten times as much
        past = np.where(records.time[low:high] >= boundary, append, NEVER)
        earliest = np.minimum(np.minimum.accumulate(past), known)
        held = np.where(records.window[low:high] == window, append, LONG_AGO)
        latest = np.maximum(np.maximum.accumulate(held), self._latest.get(window, LONG_AGO))

        ticks = level >= boundary
        quiet = (earliest + spans.quiet <= append) & (latest > LONG_AGO) & (latest + spans.quiet <= append)
        patience = earliest + spans.patience <= append
        closes = ticks | quiet | patience
        index = int(np.argmax(closes))
        return low + index if closes[index] else None

    def _close(self, append: int, level: int) -> tuple[int, int]:
        """Close all that a record closes, it being part of the state; answers with start and end of what closed.

        Ticks and patience reach up to a boundary whatever the windows hold, so they are one leap and not a
        loop over the empty windows of a long silence.
        """
        spans = self._spans
        start = min(self._latest) if self.closed_until is None else self.closed_until
        waited = (reached for reached, first in self._earliest.items() if first + spans.patience <= append)
        until = max(start, spans.boundary(level), *waited)
        stood = (reached for reached, first in self._earliest.items() if first + spans.quiet <= append)
        furthest = max(stood, default=LONG_AGO)
        while until + spans.length <= furthest and self._latest.get(until, NEVER) + spans.quiet <= append:
            until += spans.length
        assert until > start, "a record was found to close a window, and closed none"
        self.closed_until = until
        self._latest = {window: last for window, last in self._latest.items() if window >= until}
        self._earliest = {reached: first for reached, first in self._earliest.items() if reached > until}
        return start, until

    def _fold(self, records: Records, low: int, high: int) -> None:
        """Take records into the state; readings of closed windows are late and leave no trace."""
        closed = LONG_AGO + 1 if self.closed_until is None else self.closed_until
        window, append, time = records.window[low:high], records.append[low:high], records.time[low:high]
        kept = window >= closed
        if not kept.all():
            window, append, time = window[kept], append[kept], time[kept]
        if not len(window):
            return
        spans = self._spans
        for held, last in _by(window, append, np.maximum, spans.length):
            self._latest[held] = max(last, self._latest.get(held, last))
        reaches = (time - spans.allowed_lateness) // spans.length * spans.length
        for reached, first in _by(reaches, append, np.minimum, spans.length):
            if reached > closed:
                self._earliest[reached] = min(first, self._earliest.get(reached, first))


def _by(keys: Ints, values: Ints, pick: np.ufunc, step: int) -> Iterator[tuple[int, int]]:
    """The minimum or maximum (``pick``) of the values of each key; keys are multiples of ``step``."""
    base = int(np.min(keys))
    spread = (int(np.max(keys)) - base) // step
    if not spread:
        return iter([(base, int(pick.reduce(values)))])
    codes = (keys - base) // step
    if spread > SPREAD_MAX:
        keys, codes = np.unique(keys, return_inverse=True)
    else:
        keys = np.arange(base, base + (spread + 1) * step, step)
    none = NEVER if pick is np.minimum else LONG_AGO
    best = np.full(len(keys), none)
    pick.at(best, codes, values)
    held = np.flatnonzero(best != none)
    return zip(keys[held].tolist(), best[held].tolist(), strict=True)
