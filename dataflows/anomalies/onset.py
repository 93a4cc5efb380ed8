"""One episode is told once: what follows a score told must exceed it to be told again, less so as rows pass.

Rule: a score told becomes the bar; the bar falls to nothing in a straight line over ``REST_ROWS`` rows; a score passes
if it exceeds ``AGAIN`` times the bar, and sets it anew.
"""

from typing import Final

import numpy as np

from dataflows.anomalies.protocol import Array, Floats, Ints

REST_ROWS: Final = 75
AGAIN: Final = 1.4


def tell(state: dict[str, Array], series: Ints, evidence: Floats) -> Floats:
    """``evidence`` where it passes, 0 where it is the episode already told. ``told``: the bar, and its fall a row."""
    bar, fall = state["told"][:, series]
    bar = np.maximum(bar - fall, 0.0)
    passes = evidence > AGAIN * bar
    state["told"][0, series] = np.where(passes, evidence, bar)
    state["told"][1, series] = np.where(passes, evidence / REST_ROWS, fall)
    return np.where(passes, evidence, 0.0)
