"""The windows of one partition: fed slices of the log, they answer with what each did.

Rule: everything that moves a window is in the log. Nothing here reads a clock, does I/O or knows of the engine.

Guarantee: what has been answered up to an offset depends on the log up to there and on the settings, not on how the
log was cut into slices nor on crashes between them: see the package's docstring for the laws.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl

from dataflows.windowing.closing import Closing, Step
from dataflows.windowing.columns import Mask
from dataflows.windowing.judged import NO_LATE, Judged
from dataflows.windowing.limits import Limits
from dataflows.windowing.records import Records, weave
from dataflows.windowing.reduction import Reduced, reduce_window
from dataflows.windowing.rows import OpenRows
from dataflows.windowing.spans import LONG_AGO, Spans
from dataflows.windowing.ticks import Ticks
from schemas.aggregates import ROLLUPS
from schemas.errors import OperatorError
from schemas.log import LogSlice, Outcome
from schemas.progress import Claim, Counts, Progress
from schemas.settings import WindowSettings

NO_ROLLUPS: Final = ROLLUPS.to_frame()
LEAP_MAX: Final = 600_000  # windows that close at one record and are each told: more than a year of minutes
LEAP_TOLD: Final = 10_080  # of a longer leap: a week of minutes, after which nobody waits for a series


class Windows:
    """The windows of one partition, resumed from its progress.

    Feed it every slice from ``progress.resume`` on, in order and without a hole. Records below ``progress.position``
    only refill the windows that are still open; their outcomes are empty. ``workers`` are the configured ingest
    workers, whose ticks count. Raises ``OperatorError`` where the window length does not fit the progress.
    """

    def __init__(self, settings: WindowSettings, progress: Progress | Claim, workers: Sequence[str] = ()) -> None:
        if isinstance(progress, Claim):
            progress = progress.progress
        self._spans = Spans.of(settings)
        if progress.closed_until is not None and progress.closed_until % self._spans.length:
            raise OperatorError(
                f"windows.length_secs is {settings.length_secs}, but this flow has closed windows until "
                f"{progress.closed_until} ms, which no such window ends at: another length needs another "
                "flow.name and another output.table"
            )
        self._rows_max = settings.buffer_rows_max
        self._progress = progress
        self._next = progress.resume
        self._limits = Limits(progress.judged, progress.position, self._spans)
        self._ticks = Ticks(workers, progress.ticks)
        self._closing = Closing(self._spans, progress.closed_until)
        self._rows = OpenRows()

    @property
    def closed_until(self) -> int | None:
        """End (ms, exclusive) of the newest closed window."""
        return self._closing.closed_until

    @property
    def watermark(self) -> int | None:
        """Event time (ms) before which readings are late: what people are shown, with the allowed lateness added."""
        return None if self.closed_until is None else self.closed_until + self._spans.allowed_lateness

    @property
    def open_rows(self) -> int:
        """Readings in open windows, duplicates and refilled ones included."""
        return self._rows.count

    def feed(self, part: LogSlice) -> Outcome:
        """Account for the next slice. Raises ``OperatorError`` where open windows hold more rows than allowed."""
        assert part.start == self._next, f"expected the slice from offset {self._next}, got {part.start}"
        assert part.end >= part.start
        self._next = part.end
        position = self._progress.position
        if part.start < position:
            self._refill(part.messages.filter(pl.col("offset") < position))
            if part.end <= position:
                return Outcome(part.partition, NO_ROLLUPS, NO_LATE, (), (), Counts(), self._progress)
            part = _from(part, position)
        return self._account(part)

    def _refill(self, messages: pl.DataFrame) -> None:
        """Put rows that are accounted for back into the windows that are still open."""
        judged = Judged.by(self._limits, self._spans, messages)
        self._closing.refill(Records.of_messages(judged, LONG_AGO))
        self._rows.add(judged.columns, judged.windows, judged.accepted & (judged.windows >= self._closed()))

    def _account(self, part: LogSlice) -> Outcome:
        rows_before = self._rows.count
        judged = Judged.by(self._limits, self._spans, part.messages)
        steps, late = self._advance(part, judged)
        self._rows.add(judged.columns, judged.windows, judged.accepted & ~late)
        reduced = self._reduce()
        rollups = pl.concat([one.rollups for one in reduced]) if reduced else NO_ROLLUPS
        late_rows = judged.late_rows(late)
        refused = judged.refusals(part.refused)
        counts = Counts(
            messages=int(judged.accepted.sum()),
            ticks=len(part.ticks),
            refused=sum(one.whole for one in refused),
            readings=judged.readings,
            counted=sum(one.counted for one in reduced),
            late=len(late_rows),
            duplicates=sum(one.duplicates for one in reduced),
            open=self._rows.count - rows_before,
        )
        counts = replace(counts, gaps=part.end - part.start - counts.offsets)
        assert counts.gaps >= 0, "a slice holds more records than offsets"
        self._progress = self._moved(part)
        held = [int(one.rollups["bucket"][0]) + self._spans.length for one in reduced]
        closed = _ends(steps, held, self._spans.length)
        return Outcome(part.partition, rollups, late_rows, closed, refused, counts, self._progress)

    def _advance(self, part: LogSlice, judged: Judged) -> tuple[Sequence[Step], Mask]:
        """Ask every record, in the order of the log, whether it closes windows; and say which messages are late."""
        closed = [self._closed()]
        records, place = weave(judged, part.ticks, [one for one in part.refused if one.whole], self._ticks)
        steps = self._closing.advance(records)
        # A record that closes a window was judged before it did.
        passed = np.searchsorted(np.array([step.record for step in steps], np.int64), place, side="left")
        closed += [step.until for step in steps]
        return steps, judged.accepted & (judged.windows < np.array(closed)[passed])

    def _reduce(self) -> Sequence[Reduced]:
        """The rollups of all windows that are closed; their rows, and names that only they held, are let go."""
        reduced = [reduce_window(window) for window in self._rows.pop(self._closed())]
        if self._rows.count > self._rows_max:
            raise self._overfull()
        if reduced:
            self._rows.forget(max(one.devices for one in reduced), max(one.metrics for one in reduced))
        return reduced

    def _moved(self, part: LogSlice) -> Progress:
        resume = self._rows.first_offset(part.end)
        return replace(
            self._progress,
            position=part.end,
            resume=resume,
            closed_until=self.closed_until,
            ticks=self._ticks.highest,
            judged=self._limits.since(resume),
            anchor=part.anchor or self._progress.anchor,
        )

    def _closed(self) -> int:
        """Readings of windows that start before this are late."""
        return LONG_AGO if self.closed_until is None else self.closed_until

    def _overfull(self) -> OperatorError:
        return OperatorError(
            f"open windows hold {self._rows.count} readings, more than windows.buffer_rows_max = {self._rows_max}. "
            "Nothing is lost: what is not committed is read again. Give the process more memory and raise "
            "windows.buffer_rows_max, use more partitions, or let windows close sooner with a smaller "
            "windows.quiet_secs, windows.patience_secs or windows.allowed_lateness_secs"
        )


def _ends(steps: Sequence[Step], held: Sequence[int], length: int) -> Sequence[int]:
    """The ends of the windows that ``steps`` closed; those of ``held`` had readings.

    Of a leap longer than ``LEAP_MAX``, as out of 1970 where a clock stood when the log began, only the first are told,
    the last, and those that had readings: each is a record, and 29 million of them would never be committed.
    """
    if not any(step.until - step.start > LEAP_MAX * length for step in steps):
        return range(steps[0].start + length, steps[-1].until + 1, length) if steps else ()
    ends: list[int] = []
    for step in steps:
        every = range(step.start + length, step.until + 1, length)
        leaps = len(every) > LEAP_MAX
        ends += sorted({*every[:LEAP_TOLD], *(end for end in held if end in every), every[-1]}) if leaps else every
    return ends


def _from(part: LogSlice, position: int) -> LogSlice:
    """The part of a slice that is not accounted for yet."""
    ahead = pl.col("offset") >= position
    return replace(
        part,
        start=position,
        messages=part.messages.filter(ahead),
        ticks=part.ticks.filter(ahead),
        refused=[one for one in part.refused if one.offset >= position],
    )
