"""What the memory of largest deviations promises."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dataflows.anomalies.extremes import FADE, REMEMBERED, SURPRISE_MAX, remember, surprise

SIZES = st.floats(0, 1e12, allow_subnormal=False)
MEMORIES = st.lists(SIZES, min_size=REMEMBERED, max_size=REMEMBERED).map(lambda each: np.array(each)[:, None])


def _surprise(deviation: float, floor: float, memory: np.ndarray, running: float = 0.0) -> float:
    return float(surprise(np.array([deviation]), np.array([floor]), memory, np.array([running]))[0])


@given(one=SIZES, other=SIZES, memory=MEMORIES, floor=SIZES)
def test_a_larger_deviation_is_no_less_surprising(one: float, other: float, memory: np.ndarray, floor: float) -> None:
    """Surprise grows with the deviation, within its bounds."""
    low, high = sorted((one, other))
    assert 1.0 <= _surprise(low, floor, memory) <= _surprise(high, floor, memory) <= SURPRISE_MAX


def test_a_deviation_unlike_anything_remembered_says_all_it_can() -> None:
    """Ten times the largest is as good as unheard of; a tenth of the smallest is nothing."""
    memory = np.full((REMEMBERED, 1), 1.0)
    assert _surprise(10.0, 0.0, memory) > 0.99 * SURPRISE_MAX
    assert _surprise(0.1, 0.0, memory, running=1.0) < 1.001


def test_what_recurs_in_many_blocks_stops_being_news() -> None:
    """The same size surprises less with every block that held it."""
    told = [_surprise(1.0, 0.0, np.array([1.0] * met + [0.001] * (REMEMBERED - met))[:, None]) for met in range(9)]
    assert told == sorted(told, reverse=True)
    assert told[0] > 80
    assert told[-1] < 3


def test_what_is_small_beside_the_floor_is_no_news() -> None:
    """A deviation never seen, yet a hundredth of the floor, says next to nothing."""
    assert _surprise(0.01, 1.0, np.zeros((REMEMBERED, 1))) < 3


@given(memory=MEMORIES, running=SIZES)
def test_the_largest_are_remembered_in_order(memory: np.ndarray, running: float) -> None:
    """Old extremes fade, the new block takes its place among them, the smallest is forgotten."""
    memory = -np.sort(-memory, axis=0)
    kept = remember(memory, np.array([running]))
    expected = sorted([*(memory[:, 0] * FADE).tolist(), running], reverse=True)[:REMEMBERED]
    assert expected == kept[:, 0].tolist()
