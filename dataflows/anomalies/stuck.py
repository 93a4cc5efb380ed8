"""A sensor that shows one value and no other, where it used to vary.

Rule: a rollup stands still if all its readings are one value, and one that the rollup before it had reached. How many
that do so in a row are too many, a series learns from itself: three times the second longest run it has had, and as
many as chance alone makes once in ``once_in`` times, by the share of its rollups that stood still before the run began.
So a thermometer is stuck after a quarter of an hour, a coarse counter after hours, a switch after days, and a setpoint
that hardly ever moves never.

Of a run that began before ``learn_rollups`` were seen nothing is said: nights may be still as a rule, and two of them
tell. Rollups are the clock: missing minutes do not count. What has stood still for ``forget_rollups`` is made so, and
no more is said of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dataflows.anomalies import runs
from dataflows.anomalies.protocol import Field, Floats, Ints, Rollups, Scores, State

VARIED_ROLLUPS: Final = 2_880  # the share of rollups that varied is of about the last so many
FADE: Final = 1.0 - 1.0 / 10_080  # a rollup: a run has lost two thirds of its length after a week of minutes
_FIELDS: Final = {
    "rollups": Field((), np.int32),
    "lowest": Field((), np.float64),  # of the newest rollup
    "highest": Field((), np.float64),
    "run": Field((), np.int32),  # rollups that stood still, up to the newest
    "still": Field((), np.float64),  # the share of rollups that did
    "still_before": Field((), np.float64),  # the same, when the run under way began
    "longest": Field((runs.LONGEST,), np.float64),
}
_COUNT_MAX: Final = 2**30


@dataclass(frozen=True, slots=True)
class Stuck:
    """The detector of this file; see ``Detector``. It expects no value, so there is no band: those columns are NaN."""

    after_rollups: int = 15
    learn_rollups: int = 2_880
    forget_rollups: int = 30 * 1_440
    once_in: float = 1e15  # far more than series times minutes: no switch tosses an even coin all day
    name: str = "stuck"
    flag_at: float = 0.5
    unit_free: bool = False  # it is; but a single spike is none of its business, which is a law of those that are

    @property
    def params_version(self) -> str:
        """Version and settings."""
        limits = f"after={self.after_rollups};learn={self.learn_rollups};forget={self.forget_rollups}"
        return f"1;{limits};once_in={self.once_in!r}"

    @property
    def fields(self) -> Mapping[str, Field]:
        """56 bytes a series."""
        return _FIELDS

    def step(self, state: State, rollups: Rollups) -> tuple[State, Scores]:
        """See ``Detector.step``."""
        series = rollups.series
        held = {name: array[..., series] for name, array in state.items()}
        seen, begins = held["rollups"], held["run"] == 0
        reached = (rollups.min >= held["lowest"]) & (rollups.max <= held["highest"])
        still = (seen > 0) & (rollups.min == rollups.max) & reached
        run = np.where(still, np.minimum(held["run"] + 1, _COUNT_MAX), 0)
        before = np.where(begins, held["still"], held["still_before"])
        known = seen - held["run"]  # rollups before the run
        speaks = (known >= self.learn_rollups) & (run <= self.forget_rollups)
        score = np.where(speaks, runs.overdue(run.astype(np.float64), self._tolerated(before, known, held)), 0.0)

        pace = np.where(seen > 0, np.maximum(1.0 / VARIED_ROLLUPS, 1.0 / np.maximum(seen, 1)), 0.0)
        ended = np.where(still, 0, held["run"]).astype(np.float64)
        learned = {
            "rollups": np.minimum(seen + 1, _COUNT_MAX),
            "lowest": rollups.min,
            "highest": rollups.max,
            "run": run,
            "still": held["still"] + pace * (still - held["still"]),
            "still_before": before,
            "longest": runs.remember(held["longest"], ended, FADE),
        }
        after = {name: array.copy() for name, array in state.items()}
        for name, array in learned.items():
            after[name][..., series] = array
        nothing = np.full(len(series), np.nan)
        return after, Scores(series, score, nothing, nothing, nothing)

    def _tolerated(self, still: Floats, known: Ints, held: State) -> Floats:
        """How many rollups may stand still, by what the series has shown."""
        share = np.clip(still, 1.0 / (np.minimum(known, VARIED_ROLLUPS) + 2.0), 1.0 - 1e-9)  # what never was may be
        by_chance = math.log(self.once_in) * _rollups_an_e(share)
        tolerated: Floats = np.maximum(np.maximum(by_chance, runs.TIMES * held["longest"][1]), self.after_rollups)
        return tolerated


def _rollups_an_e(share: Floats) -> Floats:
    """−1 / log(share), or up to 3 % more: in a row so many have a chance of 1 / e, where each has the chance ``share``.

    By −1 / log(x) < 1 / (1 − x) − 1 / 2 at the eighth root: square roots are the same on every machine, logarithms not.
    """
    root = np.sqrt(np.sqrt(np.sqrt(share)))
    return (1.0 / (1.0 - root) - 0.5) / 8.0
