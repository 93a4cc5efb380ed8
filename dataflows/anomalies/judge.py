"""All watches of one partition at work: a closed window in, flags and episodes out.

Rule: knows nothing of logs, offsets or messages; ``flagging`` feeds it. Guarantee: what it tells is a function of the
windows and revisions it was given, in their order, to the bit; so are the ids of episodes, which hold the subject, the
watch and the opening window, and neither partition nor process.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import polars as pl

from dataflows.anomalies.episodes import NEVER, Turn
from dataflows.anomalies.known import Known
from dataflows.anomalies.lane import Lane, Said, Window
from dataflows.anomalies.outage import NAME, Outage, Silence
from dataflows.anomalies.watch import Watch
from schemas.flags import Cause, Episode, Flag

WEEK_MS: Final = 7 * 86_400_000
SERIES_MAX: Final = 1_000_000
Told = Flag | Episode


class Judge:
    """The watches of one partition, and all they know. ``watches`` have different names."""

    def __init__(
        self,
        watches: Sequence[Watch],
        length_ms: int,
        forget_after_ms: int = WEEK_MS,
        series_max: int = SERIES_MAX,
    ) -> None:
        names = [watch.name for watch in watches]
        assert len(set(names) | {NAME}) == len(names) + 1, "flags of two watches could not be told apart"
        self.length_ms: Final = length_ms
        self.known = Known(forget_after_ms, series_max)
        self.lanes: dict[str, Lane] = {watch.name: Lane(watch) for watch in watches}
        self.outage = Outage(watches)
        self.closed_until: int | None = None

    def close(self, rollups: pl.DataFrame, end: int) -> list[Told]:
        """The window up to ``end`` closed, and ``rollups`` (``schemas.flags.TOLD``) is all of it: each series once.

        Windows come in order; what is told of one stands in the order of watches, then of slots.
        """
        assert self.closed_until is None or end > self.closed_until, "windows close in order"
        window = self._window(rollups, end)
        self.closed_until = end
        devices = np.unique(self.known.device[window.series])
        silence = self.outage.turn(window.start, end, devices, len(self.known.devices))
        told = [*self._pipeline(silence, window)]
        for lane in self.lanes.values():
            lane.admit(self.known)
            may_open = lane.watch.outage_share is None or not self.outage.is_open
            told += self._of(lane, *lane.judge(window, may_open))
        told += self._forget(end)
        return told

    def revise(self, rollups: pl.DataFrame) -> list[Flag]:
        """Minutes that were judged have other values now, one after the other. Opens, closes and teaches nothing."""
        series = self.known.find(rollups).to_list()
        return [
            self._flag(lane, *found)
            for number, row in zip(series, rollups.iter_rows(named=True), strict=True)
            if number is not None
            for lane in self.lanes.values()
            if (found := lane.revise(number, row["bucket"], row, row["revision"])) is not None
        ]

    def open_episodes(self) -> dict[str, Episode]:
        """By id, the episodes that are open; of the flags that opened them no more than who, when and how high."""
        found = [
            self._episode(lane, slot) for lane in self.lanes.values() for slot in lane.episodes.standing().tolist()
        ]
        if self.outage.is_open:
            found.append(self._pipeline_episode(self.outage.opened, None))
        return {episode.episode_id: episode for episode in found}

    def _window(self, rollups: pl.DataFrame, end: int) -> Window:
        ordered = rollups.sort("device_id", "metric")
        series = self.known.numbers(ordered)
        start = end - self.length_ms
        self.known.last[series] = start
        columns = ("mean", "m2", "min", "max", "count", "revision")
        return Window(start, end, series, *(ordered[name].to_numpy() for name in columns))

    def _of(self, lane: Lane, said: Said, turn: Turn) -> Iterator[Told]:
        opening = set(turn.opening.tolist())
        for at in sorted([*opening, *turn.going_on.tolist()]):
            flag = self._flag(lane, said, at)
            if at in opening:
                yield Episode(flag.episode_id or "", flag, peak=flag.score)
            yield flag
        for slot, opened in zip(turn.closing.tolist(), turn.opened.tolist(), strict=True):
            yield self._episode(lane, slot, opened, said.end, "calm")

    def _flag(self, lane: Lane, said: Said, at: int) -> Flag:
        slot, opened = int(said.slots[at]), int(said.opened[at])
        device_id, metric = self._subject(lane, slot)
        return Flag(
            bucket=said.start,
            device_id=device_id,
            metric=metric,
            detector=lane.watch.name,
            severity=lane.watch.severity,
            score=float(said.score[at]),
            value=_number(said.value[at]),
            expected=_number(said.expected[at]),
            lower=_number(said.lower[at]),
            upper=_number(said.upper[at]),
            episode_id=None if opened == NEVER else episode_id(lane.watch.name, device_id, metric, opened),
            params_version=lane.watch.params_version,
            revision=int(said.revision[at]),
        )

    def _subject(self, lane: Lane, slot: int) -> tuple[str, str]:
        number = lane.subject[slot]
        if lane.by_device:
            return self.known.devices[number], ""
        return self.known.device_id[number], self.known.metric[number]

    def _episode(
        self, lane: Lane, slot: int, opened: int | None = None, closed: int | None = None, cause: Cause | None = None
    ) -> Episode:
        """The episode of a subject that is open, or that opened at ``opened`` and closes."""
        arrays = lane.episodes.arrays
        opened = int(arrays["opened"][slot]) if opened is None else opened
        peak = float(arrays["peak"][slot])
        device_id, metric = self._subject(lane, slot)
        named = episode_id(lane.watch.name, device_id, metric, opened)
        name, severity, version = lane.watch.name, lane.watch.severity, lane.watch.params_version
        flag = Flag(opened, device_id, metric, name, severity, peak, None, None, None, None, named, version, 0)
        return Episode(named, flag, closed, cause, peak)

    def _pipeline(self, silence: Silence, window: Window) -> Iterator[Told]:
        if silence.phase is None:
            return
        if silence.phase == "close":
            yield self._pipeline_episode(silence.opened, window.end)
            return
        share = 1.0 - silence.spoke / silence.regular
        flag = self._pipeline_flag(window.start, silence.opened, share, silence)
        if silence.phase == "open":
            yield Episode(flag.episode_id or "", flag, peak=share)
        yield flag

    def _pipeline_flag(self, bucket: int, opened: int, score: float, silence: Silence | None = None) -> Flag:
        """``value`` regular devices spoke, ``expected`` would have."""
        spoke, regular = (float(silence.spoke), float(silence.regular)) if silence else (None, None)
        named = episode_id(NAME, "", "", opened)
        return Flag(bucket, "", "", NAME, "critical", score, spoke, regular, None, None, named, "1", 0)

    def _pipeline_episode(self, opened: int, closed: int | None) -> Episode:
        flag = self._pipeline_flag(opened, opened, 1.0)
        return Episode(flag.episode_id or "", flag, closed, "calm" if closed is not None else None, 1.0)

    def _forget(self, end: int) -> Iterator[Told]:
        """Forget series that have been quiet for long, and close what is open of them."""
        lasting = self.known.lasting(end, self.length_ms)
        if lasting is None:
            return
        before = self.open_episodes()
        self._keep(lasting.tolist())
        left = self.open_episodes()
        for named, episode in before.items():
            if named not in left:
                yield episode._replace(closed=end, cause="forgotten")

    def _keep(self, series: Sequence[int]) -> None:
        former_devices = self.known.keep(np.array(series, np.int64))
        now = {old: new for new, old in enumerate(series)}
        now_device = {int(old): new for new, old in enumerate(former_devices.tolist())}
        self.outage.keep(former_devices)
        for name, lane in self.lanes.items():
            numbers = now_device if lane.by_device else now
            self.lanes[name] = fresh = Lane(lane.watch)
            fresh.adopt(self.known, [numbers.get(subject, -1) for subject in lane.subject], lane)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def episode_id(watch: str, device_id: str, metric: str, opened: int) -> str:
    """The id of an episode: 32 hexadecimal digits, the same wherever and whenever it is made."""
    told = json.dumps([watch, device_id, metric, opened], separators=(",", ":"))
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
