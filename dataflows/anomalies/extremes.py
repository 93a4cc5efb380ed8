"""How rare a deviation is, against the largest ones that a series has shown.

Rule: rows are cut into blocks; of each block only its largest deviation is kept, of the blocks only the largest few,
which fade. So an episode counts once however long it lasts, and what recurs stops being news (block maxima, as in
extreme value statistics; here counted softly instead of fitted).

Guarantee: ``surprise`` depends on ratios of deviations only, continuously: neither the unit nor rounding of the last
bit moves it. No transcendental function is used, so results do not hang on a maths library.
"""

from typing import Final

import numpy as np

from dataflows.anomalies.protocol import Floats

BLOCK_ROWS: Final = 50
REMEMBERED: Final = 8  # blocks
FADE: Final = 0.995  # a block: an extreme has lost a third of its size after 4,000 rows
LEAST_COUNT: Final = 0.1  # the count of a deviation that dwarfs all: bounds what one part can say
SURPRISE_MAX: Final = (REMEMBERED + 1 + LEAST_COUNT) / LEAST_COUNT
_RATIO_MAX: Final = 1e12


def surprise(deviation: Floats, floor: Floats, extremes: Floats, running: Floats) -> Floats:
    """From 1 (nothing new) to ``SURPRISE_MAX`` (never anything like it).

    ``extremes`` (block, …) and ``running``, the largest of the block under way, are of the same series as
    ``deviation``; an extreme counts as having reached it by 1 / (1 + ratio⁶), one half when they are equal. ``floor``
    is added to both: what is small beside a series' usual spread is no news.
    """
    raised = deviation + floor
    reached = LEAST_COUNT + _reached(raised, running + floor)
    for extreme in extremes:  # one after the other: the order of a sum must not hang on its width
        reached += _reached(raised, extreme + floor)
    return np.maximum((REMEMBERED + 1 + LEAST_COUNT) / reached, 1.0)


def remember(extremes: Floats, running: Floats) -> Floats:
    """The extremes (block, …), descending, after a block whose largest deviation is ``running``."""
    kept = np.empty_like(extremes)
    for place, extreme in enumerate(extremes * FADE):
        kept[place] = np.maximum(extreme, running)
        running = np.minimum(extreme, running)
    return kept


def _reached(raised: Floats, extreme: Floats) -> Floats:
    """Softly, whether ``extreme`` reached ``raised``: 0 to 1; 1 where both are zero."""
    nothing = extreme <= 0
    with np.errstate(over="ignore"):  # bounded on the next line
        ratio = raised / np.where(nothing, 1.0, extreme)
    ratio = np.where(nothing, np.where(raised > 0, _RATIO_MAX, 0.0), np.minimum(ratio, _RATIO_MAX))
    squared = ratio * ratio
    return 1.0 / (1.0 + squared * squared * squared)
