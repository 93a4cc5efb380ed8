"""What a series does at this time: a mean for each hour of the week, and one for each half hour of the day.

Rule: times are UTC since the epoch; the tables hold values relative to the series' anchor. The hour of the week is also
read as a pair with the hour beside it, which knows sooner what the hour alone knows better.

Guarantee: a time that a series never reported at expects nothing, and says so by a weight of zero.
"""

from typing import Final

import numpy as np

from dataflows.anomalies.protocol import Array, Floats, Ints

WEEK: Final = 168  # hours
DAY: Final = 48  # half hours
WEEK_LEARN_ROWS: Final = 50  # of one hour: its mean follows about the last fifty
DAY_LEARN_ROWS: Final = 20
_HOUR_MS: Final = 3_600_000


def slots(bucket: Ints) -> tuple[Ints, Ints]:
    """The hour of the week and the half hour of the day that windows starting at ``bucket`` (ms) belong to."""
    return bucket // _HOUR_MS % WEEK, bucket // (_HOUR_MS // 2) % DAY


def expectations(state: dict[str, Array], series: Ints, week: Ints, day: Ints) -> tuple[Floats, Floats]:
    """(hour of the week, its pair, half hour of the day) × series: the means, and how many rows they rest on."""
    own, rows = state["week_mean"][week, series], state["week_rows"][week, series].astype(np.float64)
    near, near_rows = state["week_mean"][week ^ 1, series], state["week_rows"][week ^ 1, series].astype(np.float64)
    together = rows + near_rows
    pair = (own * rows + near * near_rows) / np.maximum(together, 1.0)
    by_day, day_rows = state["day_mean"][day, series], state["day_rows"][day, series].astype(np.float64)
    return np.stack([own, pair, by_day]), np.stack([rows, together, day_rows])


def learn(
    state: dict[str, Array], series: Ints, week: Ints, day: Ints, value: Floats, level: Floats, bound: Floats
) -> None:
    """Bring both tables up to date, in place: by at most ``bound`` from what they expected, or from the level."""
    for name, slot, follow in (("week", week, WEEK_LEARN_ROWS), ("day", day, DAY_LEARN_ROWS)):
        rows = state[f"{name}_rows"][slot, series].astype(np.float64)
        before = np.where(rows > 0, state[f"{name}_mean"][slot, series], level)
        rows = np.minimum(rows + 1.0, follow)
        state[f"{name}_mean"][slot, series] = before + np.clip(value - before, -bound, bound) / rows
        state[f"{name}_rows"][slot, series] = rows.astype(np.uint8)
