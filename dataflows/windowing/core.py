"""The windows of one partition: fed slices of the log, they answer with what each did.

Rule: everything that moves a window is in the log. Nothing here reads a clock, does I/O or knows of the engine.

Guarantee: what has been answered up to an offset depends on the log up to there and on the settings, not on how the
log was cut into slices nor on crashes between them: see the package's docstring for the laws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from dataflows.windowing.closing import LONG_AGO, Closing, Records, Step, Ticks
from dataflows.windowing.limits import Limits, Verdict
from dataflows.windowing.reduction import reduce_window
from dataflows.windowing.rows import OpenRows
from dataflows.windowing.spans import Spans
from schemas.aggregates import ROLLUPS
from schemas.errors import OperatorError
from schemas.frames import LATE
from schemas.log import LogSlice, Outcome, Refused
from schemas.progress import Claim, Counts, Progress
from schemas.settings import WindowSettings

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Judged:
    """Messages of a slice, and beside them what their times mean."""

    messages: pl.DataFrame
    offsets: Ints
    appends: Ints
    events: Ints
    windows: Ints
    verdicts: npt.NDArray[np.int8]

    @property
    def accepted(self) -> Mask:
        mask: Mask = self.verdicts == Verdict.ACCEPTED
        return mask


class Windows:
    """The windows of one partition, resumed from its progress.

    Feed it every slice from ``progress.resume`` on, in order and without a hole. Records below ``progress.position``
    only refill the windows that are still open; their outcomes are empty. ``workers`` are the configured ingest
    workers, whose ticks count. Raises ``OperatorError`` where a setting is out of its domain, or does not fit the
    progress.
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
        messages = part.messages
        if part.start < position:
            self._refill(messages.filter(pl.col("offset") < position))
            if part.end <= position:
                return Outcome(part.partition, ROLLUPS.to_frame(), LATE.to_frame(), (), (), Counts(), self._progress)
            messages = messages.filter(pl.col("offset") >= position)
        return self._account(part, self._judge(messages))

    def _judge(self, messages: pl.DataFrame) -> _Judged:
        offsets = messages["offset"].to_numpy()
        appends = messages["append_time"].to_numpy()
        events = messages["event_time"].to_numpy()
        verdicts = self._limits.judge(offsets, appends, events)
        windows = events // self._spans.length * self._spans.length
        return _Judged(messages, offsets, appends, events, windows, verdicts)

    def _refill(self, messages: pl.DataFrame) -> None:
        """Put rows that are accounted for back into the windows that are still open."""
        judged = self._judge(messages)
        self._closing.refill(self._records(judged, np.full(len(messages), LONG_AGO)))
        self._keep(judged, judged.accepted & (judged.windows >= self._closed()))

    def _account(self, part: LogSlice, judged: _Judged) -> Outcome:
        position = self._progress.position
        before = self._rows.count
        closed_before = self._closed()
        ticks = part.ticks if part.start >= position else part.ticks.filter(pl.col("offset") >= position)
        refused = [one for one in part.refused if one.offset >= position]
        steps, late = self._advance(judged, ticks, [one for one in refused if one.whole], closed_before)
        self._keep(judged, judged.accepted & ~late)

        reduced = [reduce_window(window) for window in self._rows.pop(self._closed())]
        if self._rows.count > self._rows_max:
            raise self._overfull()
        rollups = pl.concat([frame for frame, _ in reduced]) if reduced else ROLLUPS.to_frame()
        late_rows = self._late(judged, late)
        refused_all = _refusals(judged, refused)
        counts = Counts(
            messages=int(judged.accepted.sum()),
            ticks=len(ticks),
            refused=sum(one.whole for one in refused_all),
            readings=int(judged.messages["value"].list.len().to_numpy()[judged.accepted].sum()),
            counted=int(rollups["count"].sum()),
            late=len(late_rows),
            duplicates=sum(duplicates for _, duplicates in reduced),
            open=self._rows.count - before,
        )
        counts = replace(counts, gaps=part.end - max(part.start, position) - counts.offsets)
        assert counts.gaps >= 0, "a slice holds more records than offsets"
        self._progress = self._moved(part)
        closed = range(steps[0].start + self._spans.length, steps[-1].until + 1, self._spans.length) if steps else ()
        return Outcome(part.partition, rollups, late_rows, closed, refused_all, counts, self._progress)

    def _advance(
        self, judged: _Judged, ticks: pl.DataFrame, refused: Sequence[Refused], closed_before: int
    ) -> tuple[Sequence[Step], Mask]:
        """Ask every record, in the order of the log, whether it closes windows; and say which messages are late."""
        place = np.arange(len(judged.offsets))
        others = np.array([*ticks["offset"], *(one.offset for one in refused)], np.int64)
        if not len(others):
            records = self._records(judged, np.full(len(place), self._ticks.level))
        else:
            records, place = self._woven(judged, ticks, refused, others)
        steps = self._closing.advance(records)
        closed = np.array([closed_before, *(step.until for step in steps)])
        # A record that closes a window was judged before it did.
        passed = np.searchsorted(np.array([step.record for step in steps], np.int64), place, side="left")
        return steps, judged.accepted & (judged.windows < closed[passed])

    def _records(self, judged: _Judged, level: Ints) -> Records:
        accepted = judged.accepted
        return Records(
            append=judged.appends,
            window=np.where(accepted, judged.windows, LONG_AGO),
            time=np.where(accepted, np.minimum(judged.events, judged.appends), LONG_AGO),
            level=level,
        )

    def _woven(
        self, judged: _Judged, ticks: pl.DataFrame, refused: Sequence[Refused], others: Ints
    ) -> tuple[Records, Ints]:
        """All records of a slice in the order of the log, and the place of each message among them."""
        order = np.argsort(np.concatenate([judged.offsets, others]), kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        count = len(judged.offsets)

        levels, columns = [self._ticks.level], (ticks["worker"], ticks["ts"], ticks["append_time"])
        levels += [self._ticks.hear(worker, min(ts, append)) for worker, ts, append in zip(*columns, strict=True)]
        level = np.repeat(levels, np.diff(place[count : count + len(ticks)], prepend=0, append=len(order)))

        plain = self._records(judged, level)
        appends = np.array([*ticks["append_time"], *(one.append_time for one in refused)], np.int64)
        nothing = np.full(len(others), LONG_AGO)
        woven = Records(
            append=np.concatenate([plain.append, appends])[order],
            window=np.concatenate([plain.window, nothing])[order],
            time=np.concatenate([plain.time, nothing])[order],
            level=level,
        )
        return woven, place[:count]

    def _keep(self, judged: _Judged, chosen: Mask) -> None:
        if chosen.all():
            self._rows.add(judged.messages, judged.windows)
        else:
            self._rows.add(judged.messages.filter(pl.Series(chosen)), judged.windows[chosen])

    def _late(self, judged: _Judged, late: Mask) -> pl.DataFrame:
        if not late.any():
            return LATE.to_frame()
        return (
            judged.messages.with_columns(pl.Series("bucket", judged.windows))
            .filter(pl.Series(late))
            .explode("metric", "value")
            .select(LATE.names())
        )

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


def _refusals(judged: _Judged, refused: Sequence[Refused]) -> Sequence[Refused]:
    """Those of the slice and those of the core, by offset; a message that is refused whole is refused once."""
    wrong = np.flatnonzero(judged.verdicts)
    if not len(wrong):
        return refused
    told = {one.offset: one for one in refused}
    for index in wrong.tolist():
        offset, append, event = (int(a[index]) for a in (judged.offsets, judged.appends, judged.events))
        reason = Verdict(int(judged.verdicts[index])).reason
        detail = f"event time {event} is {event - append:+} ms from append time {append}"
        partly = told.get(offset)
        if partly is None:
            told[offset] = Refused(offset, append, reason, detail, b"")
        else:
            told[offset] = replace(
                partly, reason=reason, detail=f"{detail}; {partly.reason}: {partly.detail}", whole=True
            )
    return [told[offset] for offset in sorted(told)]
