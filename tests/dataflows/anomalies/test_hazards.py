"""The series drawn for the laws do hold what makes them hard, and the laws can fail."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import Phase, find, settings

from dataflows.anomalies.extremes import BLOCK_ROWS
from dataflows.anomalies.novelty import WARM_ROWS, Novelty
from dataflows.anomalies.protocol import Field, Floats, Rollups, Scores, State
from tests.dataflows.anomalies.feeding import Series, feed, minutely
from tests.dataflows.anomalies.test_laws import assert_equal, one_series

HAZARDS: Mapping[str, Callable[[Series], bool]] = {
    "a gap of over an hour": lambda series: bool((np.diff(series.minute) > 60).any()),
    "a late start": lambda series: bool(series.minute[0] > 1000),
    "an exactly constant stretch": lambda series: bool((np.diff(series.value) == 0).sum() > BLOCK_ROWS),
    "a step of many spreads": lambda series: bool(np.abs(np.diff(series.value)).max(initial=0) > 1e5),
    "rows past warm-up": lambda series: len(series.value) > WARM_ROWS,
    "a flag": lambda series: bool((feed(Novelty(), [series])[0].score >= Novelty().flag_at).any()),
}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_the_hazard_occurs(hazard: str) -> None:
    """The strategy draws it within a few hundred examples."""
    find(one_series(), HAZARDS[hazard], settings=settings(max_examples=400, phases=[Phase.generate], database=None))


@dataclass(frozen=True)
class _Gossip:
    """A wrong detector: it judges a series by the mean of all in the step."""

    name: str = "gossip"
    params_version: str = "1"
    flag_at: float = 0.5
    unit_free: bool = False

    @property
    def fields(self) -> Mapping[str, Field]:
        return {}

    def step(self, state: State, rollups: Rollups) -> tuple[State, Scores]:
        centre: Floats = np.full(len(rollups.mean), rollups.mean.mean())
        score = np.minimum(np.abs(rollups.mean - centre), 1.0)
        return state, Scores(rollups.series, score, centre, centre, centre)


def test_a_detector_that_mixes_series_is_found_out() -> None:
    """The comparison behind the law of independence tells alone from together."""
    many = [minutely(np.zeros(5)), minutely(np.ones(5))]
    with pytest.raises(AssertionError):
        assert_equal(feed(_Gossip(), many[1:])[0], feed(_Gossip(), many)[1])
