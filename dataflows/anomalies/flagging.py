"""The engine of ``anomaly_flags`` for one partition: slices of ``aggregates.minute`` in, flags, episodes and state out.

Rules. A window is judged when its ``closed`` record comes, from the rollups before it; of several with one series and
window the highest revision counts, among equal ones the latest. A rollup of a window that was judged is a revision,
and changes something only if it is higher than the one judged: records that come again change nothing. Records below
the claimed position rebuild the state, and nothing is told of them.

Guarantee: what is told, and the state, are functions of the log and the watches, to the bit, whatever the cuts, and
whatever crashes came between. It owns no clock and no socket.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import polars as pl

from dataflows.anomalies import keeping
from dataflows.anomalies.judge import SERIES_MAX, WEEK_MS, Judge
from dataflows.anomalies.watch import Watch
from schemas.flags import TOLD, Episode, Flag, Judged, RollupSlice, Snapshot
from schemas.log import Refused
from schemas.progress import Claim, Counts, Progress

AHEAD_WINDOWS: Final = 60
"""Rollups of windows further ahead than this of the one that closes are nobody's: they would wait for ever."""

_KEY: Final = ["device_id", "metric"]


class Flags:
    """The windows, watches and episodes of one partition, built from its claim.

    ``snapshot`` is the one on record, without one the partition begins anew; ``told`` are the episodes that stand open
    on record. Where those differ from what the state says once it is rebuilt, because rules have changed since, they
    are closed, or opened, with the first window that closes.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        length_ms: int,
        claim: Claim,
        snapshot: Snapshot | None = None,
        told: Mapping[str, Episode] | None = None,
        forget_after_ms: int = WEEK_MS,
        series_max: int = SERIES_MAX,
    ) -> None:
        self._judge = Judge(watches, length_ms, forget_after_ms, series_max)
        if snapshot is not None:
            keeping.restore(self._judge, snapshot)
        self._length_ms = length_ms
        self._partition = claim.partition
        self._progress = claim.progress
        self._resume = claim.progress.resume  # of the snapshot on record
        self._position = claim.progress.position  # from here on things are told
        self._told: Mapping[str, Episode] | None = told or {}
        self._waiting = _Waiting()
        self._end = claim.progress.resume

    def feed(self, slice_: RollupSlice) -> Judged:
        """Take a slice in; what it led to."""
        flags: list[Flag] = []
        episodes: list[Episode] = []
        begin = 0
        offsets = slice_.rollups["offset"]
        for offset, end in slice_.closed:
            upto = int(offsets.search_sorted(offset))
            flags += self._take(slice_.rollups[begin:upto])
            begin = upto
            for one in self._close(offset, end):
                (flags if isinstance(one, Flag) else episodes).append(one)  # type: ignore[arg-type]
        flags += self._take(slice_.rollups[begin:])
        self._end = slice_.end
        self._progress = self._after(slice_)
        refused = [one for one in slice_.refused if one.offset >= self._position]
        return Judged(self._partition, flags, episodes, refused, self._counts(slice_, refused), self._progress)

    @property
    def series(self) -> int:
        """How many series the state knows."""
        return len(self._judge.known)

    def snapshot(self) -> Snapshot:
        """The state as of now. Progress resumes from it once the ``Judged`` that brings it is sealed."""
        resume = self._waiting.first if self._waiting.first is not None else self._end
        return keeping.snapshot(self._judge, resume)

    def with_snapshot(self, judged: Judged) -> Judged:
        """``judged``, the answer to the latest slice, with a snapshot that progress resumes from."""
        snapshot = self.snapshot()
        self._resume = snapshot.resume
        self._progress = replace(judged.progress, resume=snapshot.resume)
        return replace(judged, progress=self._progress, snapshot=snapshot)

    def _take(self, rollups: pl.DataFrame) -> list[Flag]:
        """Keep rollups of windows that are not judged; judge those again that revise."""
        closed_until = self._judge.closed_until
        if not len(rollups) or closed_until is None:
            self._waiting.add(rollups)
            return []
        self._waiting.add(rollups.filter(pl.col("bucket") >= closed_until))
        late = rollups.filter((pl.col("bucket") < closed_until) & (pl.col("revision") > 0))
        flags = []
        for before, rows in ((True, late.filter(pl.col("offset") < self._position)), (False, late)):
            rows = rows if before else rows.filter(pl.col("offset") >= self._position)
            found = self._judge.revise(rows) if len(rows) else []
            flags += [] if before else found
        return flags

    def _close(self, offset: int, end: int) -> Iterator[Flag | Episode]:
        """Judge the window up to ``end``, unless that was done; what there is to tell."""
        closed_until = self._judge.closed_until
        if closed_until is not None and end <= closed_until:
            return
        told = self._judge.close(self._waiting.leave(end, self._length_ms), end)
        if offset < self._position:
            return
        if self._told is not None:
            yield from self._reconciled(told, end)
            self._told = None
        yield from told

    def _reconciled(self, told: Sequence[Flag | Episode], end: int) -> Iterator[Episode]:
        """What is on record against what the state says: other rules may have made it."""
        assert self._told is not None
        opens = {one.episode_id for one in told if isinstance(one, Episode) and one.phase == "open"}
        closes = {one.episode_id for one in told if isinstance(one, Episode) and one.phase == "close"}
        now = self._judge.open_episodes()
        for named, episode in sorted(self._told.items()):
            if named not in now and named not in closes:
                yield episode._replace(closed=end, cause="settings")
        for named, episode in sorted(now.items()):
            if named not in self._told and named not in opens:
                yield episode

    def _after(self, slice_: RollupSlice) -> Progress:
        before = self._progress
        new = slice_.end > self._position
        return replace(
            before,
            position=max(before.position, slice_.end),
            resume=self._resume,
            closed_until=_latest(before.closed_until, self._judge.closed_until),
            anchor=slice_.anchor if new and slice_.anchor is not None else before.anchor,
        )

    def _counts(self, slice_: RollupSlice, refused: Sequence[Refused]) -> Counts:
        """What became of each offset; a closing counts as a tick."""
        messages = int((slice_.rollups["offset"] >= self._position).sum())
        ticks = sum(offset >= self._position for offset, _ in slice_.closed)
        gaps = slice_.end - max(slice_.start, min(self._position, slice_.end)) - messages - ticks - len(refused)
        return Counts(messages=messages, ticks=ticks, refused=len(refused), gaps=gaps)


@dataclass
class _Waiting:
    """Rollups of windows that are not judged yet, in the order of the log."""

    rows: list[pl.DataFrame] = field(default_factory=list)

    @property
    def first(self) -> int | None:
        """The lowest offset that waits."""
        return min((int(rows["offset"][0]) for rows in self.rows), default=None)

    def add(self, rollups: pl.DataFrame) -> None:
        if len(rollups):
            self.rows.append(rollups)

    def leave(self, end: int, length_ms: int) -> pl.DataFrame:
        """The rollups of the window up to ``end``, each series once; those of later windows go on waiting.

        Those of earlier ones are no whole window: only a flow that begins in the middle of the log meets them.
        """
        rows = pl.concat(self.rows) if self.rows else pl.DataFrame(schema=TOLD)
        later = rows.filter((pl.col("bucket") >= end) & (pl.col("bucket") < end + AHEAD_WINDOWS * length_ms))
        self.rows = [later] if len(later) else []
        mine = rows.filter(pl.col("bucket") == end - length_ms).sort("revision", maintain_order=True)
        return mine.unique(_KEY, keep="last", maintain_order=True)


def _latest(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)
