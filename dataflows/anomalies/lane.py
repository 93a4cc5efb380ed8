"""One watch at work in one partition: whom it watches, what its detector and its episodes know, what it said lately.

Rule: a subject (a series, or a device) has a slot, given when its first matching series is seen; which slot changes no
answer. What a window was told is kept for 15 minutes, so that a minute that late readings revise is judged again
against the band that was predicted for it; the model's state does not change by that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from dataflows.anomalies.episodes import NEVER, Episodes, Flags, Turn
from dataflows.anomalies.known import Known
from dataflows.anomalies.protocol import Array, Floats, Ints, Rollups, State, blank, grown
from dataflows.anomalies.watch import MINUTE_MS, Watch

KEPT_MS: Final = 15 * MINUTE_MS
FIRM_SCORES: Final = 250
"""A band that a detector learned counts against a revised minute once the subject was judged so often."""


@dataclass(frozen=True, slots=True)
class Window:
    """The rollups of one closed window, an entry a series, ascending by device and metric."""

    start: int
    end: int
    series: Ints
    mean: Floats
    m2: Floats
    min: Floats
    max: Floats
    count: Ints
    revision: Ints


@dataclass(frozen=True, slots=True)
class Said:
    """What a watch said of a window, an entry a subject judged, ascending by slot.

    ``value`` and ``revision`` are those of the rollup; NaN and 0 where there was none. ``opened`` is the opening window
    of the episode whose flag this is, NEVER where it is no flag. ``Lane.revise`` alone changes entries.
    """

    start: int
    end: int
    slots: Ints
    score: Floats
    value: Floats
    expected: Floats
    lower: Floats
    upper: Floats
    revision: Ints
    opened: Ints
    firm: Flags  # whether the band counts against a revised value


class Lane:
    """One watch in one partition."""

    def __init__(self, watch: Watch) -> None:
        self.watch: Final = watch
        self.subject: list[int] = []  # slot → number of its series or device
        self.slot: dict[int, int] = {}  # and back
        self.place: Ints = np.empty(0, np.int64)  # series → slot; −1 where it is not watched
        self.state: State = blank(watch.detector, 0)
        self.episodes = Episodes(watch)
        self.said: list[Said] = []

    @property
    def by_device(self) -> bool:
        return self.watch.subject == "device"

    @property
    def of(self) -> str:
        """The column of a rollup that is judged, and that flags give as ``value``: the mean, unless the detector has
        another."""
        return getattr(self.watch.detector, "of", "mean")

    def admit(self, known: Known) -> None:
        """Give slots to the subjects of series that are new."""
        places = []
        for series in range(len(self.place), len(known)):
            if not self.watch.matches(known.device_id[series], known.metric[series]):
                places.append(-1)
                continue
            subject = int(known.device[series]) if self.by_device else series
            if subject not in self.slot:
                self.slot[subject] = len(self.subject)
                self.subject.append(subject)
            places.append(self.slot[subject])
        self.place = np.append(self.place, places).astype(np.int64)
        if (count := len(self.subject)) > len(self.episodes.arrays["heard"]):
            self.state = grown(self.state, count)
            self.episodes.grow(count)

    def judge(self, window: Window, may_open: bool) -> tuple[Said, Turn]:
        """Score a window, learn from it, and move the episodes."""
        rollups, revision = self._rollups(window)
        self.state, scores = self.watch.detector.step(self.state, rollups)
        order = np.argsort(scores.series, kind="stable")
        slots, score = scores.series[order], scores.score[order]
        value = np.full(len(self.subject), np.nan)
        value[rollups.series] = getattr(rollups, self.of)
        revisions = np.zeros(len(self.subject), np.int64)
        revisions[rollups.series] = revision
        heard = ~np.isnan(value[slots])
        turn = self.episodes.turn(window.start, window.end, slots, score, heard, may_open)
        opened = np.full(len(slots), NEVER, np.int64)
        for some in (turn.opening, turn.going_on):
            opened[some] = self.episodes.arrays["opened"][slots[some]]
        firm = np.ones(len(slots), np.bool_)
        if self.watch.detector.unit_free:
            firm = self.episodes.arrays["judged"][slots] > FIRM_SCORES
        said = Said(
            start=window.start,
            end=window.end,
            slots=slots,
            score=score,
            value=value[slots],
            expected=scores.expected[order],
            lower=scores.lower[order],
            upper=scores.upper[order],
            revision=revisions[slots],
            opened=opened,
            firm=firm,
        )
        self.said = [past for past in self.said if past.end > window.end - KEPT_MS] + [said]
        return said, turn

    def revise(self, series: int, start: int, row: Mapping[str, float], revision: int) -> tuple[Said, int] | None:
        """Judge a revised minute again; what is said of it now, and where. None where it makes no flag, and was none.

        A device watch does not: late readings show that a device spoke, and that is known by then.
        """
        if self.by_device or (slot := self.place[series]) < 0:
            return None
        said = next((said for said in self.said if said.start == start), None)
        if said is None:
            return None
        at = int(np.searchsorted(said.slots, slot))
        heard = at < len(said.slots) and said.slots[at] == slot and not np.isnan(said.value[at])
        if not heard or revision <= said.revision[at]:
            return None
        value = row[self.of]
        again = self._again(said, at, value)
        said.score[at], said.value[at], said.revision[at] = again, value, revision
        return (said, at) if said.opened[at] != NEVER or again >= self.watch.flag_at else None

    def _again(self, said: Said, at: int, value: float) -> float:
        """The score of a revised value: as it was, unless the value crossed the band's edge.

        Outside now, it is at least ``flag_at``; inside now, 0. What made the score while the value stayed on one side
        (its past, its neighbours) has not changed.
        """
        before, score = said.value[at], float(said.score[at])
        was_in, is_in = (bool(said.lower[at] <= one <= said.upper[at]) for one in (before, value))
        if was_in == is_in or np.isnan(said.lower[at]) or np.isnan(said.upper[at]):
            return score
        if is_in:
            return 0.0
        return max(score, self.watch.flag_at) if said.firm[at] else score

    def _rollups(self, window: Window) -> tuple[Rollups, Ints]:
        """What the detector is given of a window, and the revision of each."""
        places = self.place[window.series]
        mine = np.flatnonzero(places >= 0)
        places = places[mine]
        if not self.by_device:
            rollups = Rollups(
                series=places,
                bucket=np.full(len(mine), window.start, np.int64),
                mean=window.mean[mine],
                m2=window.m2[mine],
                min=window.min[mine],
                max=window.max[mine],
                count=window.count[mine],
                closed_until=window.end,
            )
            return rollups, window.revision[mine]
        slots, inverse = np.unique(places, return_inverse=True)
        count = np.zeros(len(slots), np.int64)
        np.add.at(count, inverse, window.count[mine])
        bucket, total = np.full(len(slots), window.start, np.int64), count.astype(np.float64)
        return Rollups(slots, bucket, total, np.zeros(len(slots)), total, total, count, window.end), 0 * count

    def adopt(self, known: Known, subjects: Sequence[int], before: "Lane") -> None:
        """Take over what ``before`` knows of its subjects, which are now ``subjects``; −1 is one that is gone.

        Of its detector's state and of its episodes, each where it is the same as ours.
        """
        self.admit(known)
        slots = np.array([self.slot.get(subject, -1) for subject in subjects], np.int64)
        theirs = np.flatnonzero(slots >= 0)
        ours = slots[theirs]
        self.state = {name: _moved(array, before.state[name], ours, theirs) for name, array in self.state.items()}
        for name, array in self.episodes.arrays.items():
            self.episodes.arrays[name] = _moved(array, before.episodes.arrays[name], ours, theirs)
        self.said = [moved for said in before.said if (moved := _moved_said(said, slots)) is not None]


def _moved(into: Array, source: Array, ours: Ints, theirs: Ints) -> Array:
    after = into.copy()
    after[..., ours] = source[..., theirs]
    return after


def _moved_said(said: Said, slots: Ints) -> Said | None:
    """``said`` where slot i is now ``slots[i]``, without what is gone."""
    now = slots[said.slots]
    order = np.argsort(now, kind="stable")
    order = order[now[order] >= 0]
    names = ("score", "value", "expected", "lower", "upper", "revision", "opened", "firm")
    return replace(said, slots=now[order], **{name: getattr(said, name)[order] for name in names})
