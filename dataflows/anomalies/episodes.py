"""Episodes: one anomaly is told once when it opens and once when it closes, whatever its scores do in between.

Rule: per subject, a run of scores at or above ``flag_at`` that has lasted ``for_mins`` opens an episode, unless one
closed less than ``cool_down_mins`` ago. A score at or above ``clear_at`` keeps it open; without one for
``close_after_mins``, or for twice the time between the subject's last two rollups where that is longer, it closes.
A run ends with a lower score, and with a gap as long as that.

Guarantee: what happens depends on the subject's own scores and on the windows that closed; time is theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflows.anomalies.protocol import Array, Floats, Ints
from dataflows.anomalies.watch import MINUTE_MS, Watch

NEVER: Final = -(2**62)
UPDATE_MS: Final = 60 * MINUTE_MS
"""How often an open episode of a subject that says nothing is flagged again: a row a minute would say nothing new."""

_FIELDS: Final[Mapping[str, tuple[type[np.generic], float]]] = {
    "heard": (np.int64, NEVER),  # window of the last score
    "gap": (np.int64, 0),  # between the last two
    "since": (np.int64, NEVER),  # first window of the run of scores at or above flag_at
    "opened": (np.int64, NEVER),  # opening window of the open episode
    "last": (np.int64, NEVER),  # end of its last window with a score at or above clear_at
    "closed": (np.int64, NEVER),  # when the last episode closed
    "peak": (np.float64, 0.0),  # highest score of the open episode
    "judged": (np.int64, 0),  # scores so far
}

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one window did: positions in the window's scores that open or go on, and subjects that close.

    ``opened`` are the windows with which the episodes that close had opened.
    """

    opening: Ints
    going_on: Ints
    closing: Ints
    opened: Ints


class Episodes:
    """The episodes of one watch, an entry a subject."""

    def __init__(self, watch: Watch, subjects: int = 0) -> None:
        self._watch = watch
        self._for_ms = watch.for_mins * MINUTE_MS
        self._close_ms = watch.close_after_mins * MINUTE_MS
        self._cool_ms = watch.cool_down_mins * MINUTE_MS
        self.arrays: dict[str, Array] = {name: np.full(subjects, v, kind) for name, (kind, v) in _FIELDS.items()}

    def grow(self, subjects: int) -> None:
        """Make room for ``subjects`` in all."""
        more = Episodes(self._watch, subjects - len(self.arrays["heard"])).arrays
        self.arrays = {name: np.concatenate([array, more[name]]) for name, array in self.arrays.items()}

    def turn(self, start: int, end: int, subjects: Ints, scores: Floats, heard: Flags, may_open: bool) -> Turn:
        """The window [start, end) closed, and ``subjects`` were judged in it; ``heard`` are those with a rollup.

        Where ``may_open`` is False none opens; runs go on.
        """
        at = self.arrays
        self._run(start, end, subjects, scores)
        hot, warm = scores >= self._watch.flag_at, scores >= self._watch.clear_at
        was_open = at["opened"][subjects] != NEVER
        cool = end - at["closed"][subjects] > self._cool_ms
        opens = may_open & hot & ~was_open & cool & (end - at["since"][subjects] >= self._for_ms)
        at["opened"][subjects[opens]] = start
        at["peak"][subjects[opens]] = 0.0
        lasts = warm & (was_open | opens)
        at["last"][subjects[lasts]] = end
        at["peak"][subjects[lasts]] = np.maximum(at["peak"][subjects[lasts]], scores[lasts])
        whole = (end - at["opened"][subjects]) % UPDATE_MS < end - start
        goes_on = was_open & warm & (heard | whole)
        return Turn(np.flatnonzero(opens), np.flatnonzero(goes_on), *self._close(end))

    def standing(self) -> Ints:
        """Subjects with an open episode."""
        return np.flatnonzero(self.arrays["opened"] != NEVER)

    def keep(self, subjects: Ints) -> None:
        """Drop all but ``subjects``, which take the places 0, 1, … in this order."""
        self.arrays = {name: array[subjects] for name, array in self.arrays.items()}

    def _run(self, start: int, end: int, subjects: Ints, scores: Floats) -> None:
        """Bring runs of high scores, and the subjects' own pace, up to date."""
        at = self.arrays
        before = at["heard"][subjects]
        new = before == NEVER
        gap = np.where(new, end - start, start - before)
        broken = gap > np.maximum(self._close_ms, 2 * at["gap"][subjects])
        since = at["since"][subjects]
        since = np.where((since == NEVER) | broken, start, since)
        at["since"][subjects] = np.where(scores >= self._watch.flag_at, since, NEVER)
        at["heard"][subjects], at["gap"][subjects] = start, gap
        at["judged"][subjects] += 1

    def _close(self, end: int) -> tuple[Ints, Ints]:
        """Close what has been calm for long enough: which subjects, and when each had opened. Their ``peak`` stands."""
        at, subjects = self.arrays, self.standing()
        calm_ms = np.maximum(self._close_ms, 2 * at["gap"][subjects])
        closing = subjects[end - at["last"][subjects] >= calm_ms]
        opened: Ints = at["opened"][closing]
        at["closed"][closing], at["opened"][closing] = end, NEVER
        return closing, opened
