"""What a limit says of values on either side of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.anomalies.protocol import Rollups, blank
from dataflows.anomalies.threshold import CLEAR_AT, FLAG_AT, VALUE_MAX, Threshold, excess
from tests.dataflows.anomalies.feeding import feed, minutely

FINITE = st.floats(-VALUE_MAX, VALUE_MAX)


@given(value=st.floats(allow_nan=False, allow_infinity=False), limit=FINITE, clear=FINITE)
def test_flagged_is_exactly_what_is_beyond_the_limit(value: float, limit: float, clear: float) -> None:
    """Above the limit, and not at it; between clear and limit an episode goes on; from clear on it may close."""
    clear, limit = sorted((clear, limit))
    score = float(excess(np.array([value]), "above", limit, clear)[0])
    assert (score >= FLAG_AT) == (min(value, VALUE_MAX) > limit)
    assert (score >= CLEAR_AT) == (min(value, VALUE_MAX) > clear)
    assert 0 <= score <= 1


@given(values=st.lists(FINITE, min_size=2, max_size=2), limit=FINITE, clear=FINITE)
def test_the_further_the_higher(values: list[float], limit: float, clear: float) -> None:
    """The score never falls as the value rises."""
    clear, limit = sorted((clear, limit))
    low, high = excess(np.array(sorted(values)), "above", limit, clear)
    assert low <= high


@given(value=FINITE, limit=FINITE, clear=FINITE)
def test_below_is_above_in_the_mirror(value: float, limit: float, clear: float) -> None:
    """What is too low is judged as its negative that is too high."""
    clear, limit = sorted((clear, limit))
    one = np.array([value])
    assert excess(one, "above", limit, clear)[0] == excess(-one, "below", -limit, -clear)[0]


def test_hysteresis_by_two_levels() -> None:
    """A value that crosses 90 is flagged, lingers down to 85, and is clear at 85."""
    values = np.array([80.0, 85.0, 85.1, 90.0, 90.1, 88.0, 85.0])
    (said,) = feed(Threshold("above", 90.0, clear=85.0), [minutely(values)])
    assert [False, False, False, False, True, False, False] == (said.score >= FLAG_AT).tolist()
    assert [False, False, True, True, True, True, False] == (said.score >= CLEAR_AT).tolist()


def test_without_clear_it_is_clear_at_the_limit() -> None:
    """No hysteresis unless asked for."""
    (said,) = feed(Threshold("below", 5.0), [minutely(np.array([5.0, 4.9, 5.0]))])
    assert [0.0, 0.0] == said.score[[0, 2]].tolist()
    assert said.score[1] > FLAG_AT


@pytest.mark.parametrize(("of", "flagged"), [("mean", False), ("max", True), ("min", False)])
def test_any_of_three_statistics_is_judged(of: str, flagged: bool) -> None:
    """A peak within the minute is seen by ``of: max`` alone."""
    one = np.ones(1)
    rollups = Rollups(np.arange(1), np.zeros(1, np.int64), 50 * one, 0 * one, 10 * one, 95 * one, np.full(1, 9), 60_000)
    detector = Threshold("above", 90.0, of=of)  # type: ignore[arg-type]
    _, scores = detector.step(blank(detector, 1), rollups)
    assert flagged == bool(scores.score[0] >= FLAG_AT)


def test_the_limit_explains() -> None:
    """The band is the limit on one side and open on the other; nothing is expected."""
    (above,) = feed(Threshold("above", 90.0, clear=85.0), [minutely(np.array([95.0]))])
    (below,) = feed(Threshold("below", 5.0), [minutely(np.array([95.0]))])
    assert [-np.inf, 90.0] == [*above.lower, *above.upper]
    assert [5.0, np.inf] == [*below.lower, *below.upper]
    assert np.isnan([*above.expected, *below.expected]).all()


def test_parameters_are_in_the_version() -> None:
    """Two limits never share a version."""
    versions = {
        each.params_version for each in (Threshold(), Threshold(limit=1.0), Threshold("below"), Threshold(of="max"))
    }
    assert len(versions) == 4
