"""A limit on a metric: news is what lies beyond it, and until it has come back past where it is clear again.

Rule: below ``CLEAR_AT`` lies what is clear, from ``FLAG_AT`` on what is beyond the limit, between them what would
neither open an episode nor close one. A watch turns these two levels into hysteresis; nothing is kept here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from dataflows.anomalies.protocol import Field, Floats, Rollups, Scores, State

FLAG_AT: Final = 0.5
CLEAR_AT: Final = 0.25
VALUE_MAX: Final = 1e300  # beyond, differences would overflow
_LINGERS_MAX: Final = 0.24  # what a value at the limit itself is above CLEAR_AT: less than FLAG_AT

Side = Literal["above", "below"]
Statistic = Literal["mean", "min", "max"]


def excess(value: Floats, side: Side, limit: float, clear: float) -> Floats:
    """The score of ``value``: see the module's rule. Grows with the distance; half way from FLAG_AT to 1 it is as
    far beyond the limit as the limit is from ``clear``, or as a tenth of the limit where that is more."""
    sign = 1.0 if side == "above" else -1.0
    value, limit, clear = sign * np.clip(value, -VALUE_MAX, VALUE_MAX), sign * limit, sign * clear
    scale = max(limit - clear, 0.1 * abs(limit), 1e-300)
    beyond = np.maximum(value - limit, 0.0)
    far = FLAG_AT + (1.0 - FLAG_AT) * (beyond / (beyond + scale))
    between = np.clip(value, clear, limit) - clear
    lingers = CLEAR_AT + _LINGERS_MAX * between / max(limit - clear, 1e-300)
    return np.where(value > limit, far, np.where(value > clear, lingers, 0.0))


def bounds(side: Side, limit: Floats) -> tuple[Floats, Floats]:
    """(lower, upper) of what is allowed: the open end is infinite, or NaN where the limit is."""
    endless = np.where(np.isnan(limit), np.nan, np.inf)
    return (-endless, limit) if side == "above" else (limit, endless)


@dataclass(frozen=True, slots=True)
class Threshold:
    """The detector of this file; see ``Detector``. ``of`` is the column of the rollup that is judged.

    ``above`` 90 flags what is more than 90, ``below`` what is less; an episode lasts until the value is at ``clear``
    or better. It expects nothing but the band: ``expected`` is NaN.
    """

    side: Side = "above"
    limit: float = 0.0
    clear: float | None = None
    of: Statistic = "mean"
    name: str = "threshold"
    flag_at: float = FLAG_AT
    unit_free: bool = False

    @property
    def params_version(self) -> str:
        """Version and limits."""
        return f"1;{self.of};{self.side}={self.limit!r};clear={self._clear!r}"

    @property
    def fields(self) -> Mapping[str, Field]:
        """Nothing is kept."""
        return {}

    def step(self, state: State, rollups: Rollups) -> tuple[State, Scores]:
        """See ``Detector.step``."""
        value: Floats = getattr(rollups, self.of)
        lower, upper = bounds(self.side, np.full(len(value), self.limit))
        score = excess(value, self.side, self.limit, self._clear)
        return state, Scores(rollups.series, score, np.full(len(value), np.nan), lower, upper)

    @property
    def _clear(self) -> float:
        return self.limit if self.clear is None else self.clear
