"""Rollups on their way to a detector."""

import numpy as np
import polars as pl

from dataflows.anomalies.novelty import Novelty
from dataflows.anomalies.protocol import Rollups, blank, grown
from schemas.aggregates import ROLLUPS, partial


def test_a_frame_and_its_values_are_the_same_rollups() -> None:
    """Rollups of one reading, read from a frame as the window core emits it, equal those made of the values."""
    values, series = [1.5, -2.0, 0.0], np.array([4, 0, 2])
    rows = [{"bucket": 60_000, "device_id": "d", "metric": "m", **partial(60_001, value)} for value in values]
    framed = Rollups.of_frame(pl.DataFrame(rows, schema=ROLLUPS), series, 120_000)
    plain = Rollups.of_values(series, np.full(3, 60_000), np.array(values))
    assert plain.closed_until == framed.closed_until
    for column in ("series", "bucket", "mean", "m2", "min", "max", "count"):
        np.testing.assert_array_equal(getattr(plain, column), getattr(framed, column))


def test_growing_leaves_what_was_there() -> None:
    """Room for more series: the first keep their arrays, the new ones are as never seen."""
    detector = Novelty()
    state, _ = detector.step(blank(detector, 2), Rollups.of_values(np.arange(2), np.zeros(2, np.int64), np.ones(2)))
    wider = grown(state, 5)
    for name, array in blank(detector, 3).items():
        np.testing.assert_array_equal(wider[name][..., :2], state[name])
        np.testing.assert_array_equal(wider[name][..., 2:], array)
