"""How long a subject usually holds out, and how far beyond that it is now: for values that stand still and devices
that say nothing.

Rule: of all runs that ended the longest two are remembered, fading; the second of them counts. So what happened once
teaches nothing, however long it was, and what recurs is usual from its second time on.
"""

from typing import Final

import numpy as np

from dataflows.anomalies.protocol import Floats

LONGEST: Final = 2
TIMES: Final = 3.0  # the second longest run: what is longer is unusual


def remember(longest: Floats, ended: Floats, fade: Floats | float) -> Floats:
    """``longest`` (descending, run × subject) after runs of length ``ended``; 0 where none ended."""
    first, second = longest * fade
    return np.stack([np.maximum(first, ended), np.maximum(second, np.minimum(first, ended))])


def overdue(run: Floats, tolerated: Floats) -> Floats:
    """The score of a run: one half when it reaches what is tolerated, a quarter at a third of it, 1 in the end."""
    return run / (run + tolerated)
