"""Which values a series has taken: a few of them, far enough apart to stand for the rest.

Rule: a value further than ``APART`` spreads from all that are known is added in place of the oldest. Values are
relative to the series' anchor and never moved, so that nothing hangs on which of two equally near ones is nearer.
"""

from typing import Final

import numpy as np

from dataflows.anomalies.protocol import Array, Floats, Ints

KNOWN: Final = 32
APART: Final = 0.6180339887498949  # of the spread; no ratio of round numbers, so that round data never tie with it


def distance(state: dict[str, Array], series: Ints, value: Floats, spread: Floats) -> Floats:
    """How far ``value`` lies from the nearest known one, 0 for a series' first; it is added in place if far enough."""
    known, count = state["known"][:, series], state["known_count"][series]
    nearest = np.full(len(series), np.inf)
    for place in range(KNOWN):
        nearest = np.minimum(nearest, np.where(place < count, np.abs(value - known[place]), np.inf))
    far = np.flatnonzero(nearest > APART * spread)
    state["known"][count[far] % KNOWN, series[far]] = value[far]
    # Past KNOWN only the remainder matters: the count goes round within [KNOWN, 2 KNOWN).
    state["known_count"][series[far]] = np.where(count[far] + 1 == 2 * KNOWN, KNOWN, count[far] + 1)
    return np.where(count > 0, nearest, 0.0)
