"""One episode is told once: what follows a score told must exceed it to be told again, less so as rows pass.

Rule: a score told becomes the bar; the bar falls to nothing in a straight line over ``REST_ROWS`` rows; a score passes
if it exceeds ``AGAIN`` times the bar, and sets it anew. Passing is a short ramp, not an edge, so that a score that
ties with the bar does not hang on the last bit.
"""

from typing import Final

import numpy as np

from dataflows.anomalies.protocol import Array, Floats, Ints

REST_ROWS: Final = 75
AGAIN: Final = 1.4
_RAMP: Final = 0.01


def tell(state: dict[str, Array], series: Ints, evidence: Floats) -> Floats:
    """``evidence`` where it passes, 0 where it is the episode already told. ``told``: the bar, and its fall a row."""
    bar, fall = state["told"][:, series]
    bar = np.maximum(bar - fall, 0.0)
    needed = AGAIN * bar
    over = np.where(needed > 0, evidence / np.where(needed > 0, needed, 1.0) - 1.0, 1.0)
    passes = np.clip(over / _RAMP, 0.0, 1.0)
    state["told"][0, series] = bar + passes * (evidence - bar)
    state["told"][1, series] = fall + passes * (evidence / REST_ROWS - fall)
    return evidence * passes
