"""A limit on how fast a metric changes: per minute, over a span of minutes.

Rule: a rollup is compared with the oldest one at most a span before it, and with none where that one is less than half
a span old: after a silence nothing is said until half a span is known again. Memory does not grow with the span: of
spans longer than ``SAMPLES`` − 2 rollups samples are kept, so "a span before" is exact to an eighth of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dataflows.anomalies import threshold
from dataflows.anomalies.protocol import Field, Floats, Rollups, Scores, State
from dataflows.anomalies.threshold import Side, Statistic, bounds, excess

SAMPLES: Final = 10
MINUTE_MS: Final = 60_000
_FIELDS: Final = {
    "sampled": Field(
        (), np.uint8
    ),  # how many samples there are: past SAMPLES it goes round within [SAMPLES, 2 SAMPLES)
    "at": Field((SAMPLES,), np.int64),
    "value": Field((SAMPLES,), np.float64),
}


@dataclass(frozen=True, slots=True)
class Rate:
    """The detector of this file; see ``Detector``. ``limit`` and ``clear`` are changes a minute, signed: ``above`` 2
    flags what rises by more than 2 a minute, ``below`` −2 what falls by more.

    The band explains in the metric's unit: how far the value may have come from what it was a span ago.
    """

    side: Side = "above"
    limit: float = 1.0
    clear: float | None = None
    span_mins: float = 5.0
    of: Statistic = "mean"
    name: str = "rate"
    flag_at: float = threshold.FLAG_AT
    unit_free: bool = False

    @property
    def params_version(self) -> str:
        """Version, limits and span."""
        return f"1;{self.of};{self.side}={self.limit!r};clear={self._clear!r};span={self.span_mins!r}"

    @property
    def fields(self) -> Mapping[str, Field]:
        """161 bytes a series, whatever the span."""
        return _FIELDS

    def step(self, state: State, rollups: Rollups) -> tuple[State, Scores]:
        """See ``Detector.step``."""
        series, now = rollups.series, rollups.bucket
        value: Floats = np.clip(getattr(rollups, self.of), -threshold.VALUE_MAX, threshold.VALUE_MAX)
        sampled, at, values = state["sampled"][series], state["at"][:, series], state["value"][:, series]
        age = (now - at) / MINUTE_MS
        there = np.arange(SAMPLES)[:, None] < sampled
        usable = there & (age <= self.span_mins) & (age >= self.span_mins / 2) & (age > 0)
        oldest = np.argmax(np.where(usable, age, -1.0), axis=0)[None]
        known = np.take_along_axis(usable, oldest, 0)[0]
        mins = np.where(known, np.take_along_axis(age, oldest, 0)[0], 1.0)
        before = np.where(known, np.take_along_axis(values, oldest, 0)[0], value)
        score = np.where(known, excess((value - before) / mins, self.side, self.limit, self._clear), 0.0)
        lower, upper = bounds(self.side, np.where(known, before + self.limit * mins, np.nan))
        nothing = np.full(len(series), np.nan)
        return self._sample(state, rollups, value), Scores(series, score, nothing, lower, upper)

    def _sample(self, state: State, rollups: Rollups, value: Floats) -> State:
        """The state with each rollup that is an eighth of a span later than the newest sample, or the first."""
        series, now = rollups.series, rollups.bucket
        sampled = state["sampled"][series].astype(np.int64)
        newest = state["at"][(sampled - 1) % SAMPLES, series]
        due = (sampled == 0) | (now - newest >= self.span_mins / (SAMPLES - 2) * MINUTE_MS)
        slot, series = sampled[due] % SAMPLES, series[due]
        after = {name: array.copy() for name, array in state.items()}
        after["at"][slot, series], after["value"][slot, series] = now[due], value[due]
        after["sampled"][series] = np.where(sampled[due] + 1 == 2 * SAMPLES, SAMPLES, sampled[due] + 1)
        return after

    @property
    def _clear(self) -> float:
        return self.limit if self.clear is None else self.clear
