"""A device that used to report and says nothing.

Rule: what counts is the time since a device's newest window, up to the end of the window that closed last: the log
moves it, no clock. How long is too long a device learns from itself: three times the second longest gap it has had, its
mean gap and ``OFTEN`` times what gaps usually differ from it, and ``after_mins`` at least. So one outage, of the device
or of all of us, teaches nearly nothing; and one that is off every night is missed for two nights, and then no more.

It speaks of devices that are not in the step; those that are have returned, and score 0. Nothing is said before a
device has reported ``learn_rollups`` times, and none that has said nothing for ``forget_mins``: it is gone for good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dataflows.anomalies import runs
from dataflows.anomalies.protocol import Array, Field, Floats, Ints, Rollups, Scores, State

OFTEN: Final = 20.0  # mean absolute deviations: reports that come by chance leave such a gap once in six million
GAPS: Final = 1_000  # the mean is of about the last so many, and so is the deviation
FADE: Final = 1.0 / (14 * 1_440)  # a minute of gap: a remembered gap has lost two thirds of its length after 14 days
MINUTE_MS: Final = 60_000
_FIELDS: Final = {
    "rollups": Field((), np.int32),
    "newest": Field((), np.int64),  # start of its newest window, ms
    "gap": Field((), np.float64),  # the mean, in minutes from window to window
    "spread": Field((), np.float64),  # mean absolute deviation from it
    "longest": Field((runs.LONGEST,), np.float64),
}
_COUNT_MAX: Final = 2**30


@dataclass(frozen=True, slots=True)
class Silence:
    """The detector of this file; see ``Detector``. Its subjects are devices; it expects no value: no band."""

    after_mins: int = 10
    learn_rollups: int = 60
    forget_mins: int = 7 * 1_440
    name: str = "silence"
    flag_at: float = 0.5
    unit_free: bool = False  # values do not matter at all, so the laws about them say nothing here

    @property
    def params_version(self) -> str:
        """Version and settings."""
        return f"1;after={self.after_mins};learn={self.learn_rollups};forget={self.forget_mins}"

    @property
    def fields(self) -> Mapping[str, Field]:
        """44 bytes a device."""
        return _FIELDS

    def step(self, state: State, rollups: Rollups) -> tuple[State, Scores]:
        """See ``Detector.step``; a step is all that closed at ``closed_until``."""
        after = self._learned(state, rollups)
        quiet = (rollups.closed_until - after["newest"]) / MINUTE_MS - 1.0  # less a minute: its own window
        speaks = (after["rollups"] > self.learn_rollups) & (quiet > 0) & (quiet <= self.forget_mins)
        speaks[rollups.series] = False
        absent = np.flatnonzero(speaks)
        score = runs.overdue(quiet[absent], self._tolerated(after, absent))
        series = np.concatenate([rollups.series, absent])
        nothing = np.full(len(series), np.nan)
        return after, Scores(series, np.concatenate([np.zeros(len(rollups.series)), score]), nothing, nothing, nothing)

    def _learned(self, state: State, rollups: Rollups) -> dict[str, Array]:
        """The state with what the gap before each rollup teaches."""
        series = rollups.series
        seen, mean, spread = state["rollups"][series], state["gap"][series], state["spread"][series]
        gap: Floats = np.where(seen > 0, (rollups.bucket - state["newest"][series]) / MINUTE_MS, 0.0)
        bounded = np.minimum(gap, self._tolerated(state, series))  # so that one outage moves the mean but little
        pace = np.where(seen > 0, np.maximum(1.0 / GAPS, 1.0 / np.maximum(seen, 1)), 0.0)
        fade = np.maximum(1.0 - FADE * gap, 0.0)
        after = {name: array.copy() for name, array in state.items()}
        after["gap"][series] = mean + pace * (bounded - mean)
        after["spread"][series] = spread + pace * (np.abs(bounded - mean) * (seen > 1) - spread)
        after["longest"][:, series] = runs.remember(state["longest"][:, series], gap, fade)
        after["newest"][series] = rollups.bucket
        after["rollups"][series] = np.minimum(seen + 1, _COUNT_MAX)
        return after

    def _tolerated(self, state: State, places: Ints) -> Floats:
        """How many minutes of silence are usual, by what each device has shown."""
        usual = state["gap"][places] + OFTEN * state["spread"][places]
        recurs = runs.TIMES * state["longest"][1, places]
        tolerated: Floats = np.maximum(np.maximum(usual, recurs), float(self.after_mins))
        return tolerated
