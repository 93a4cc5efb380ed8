"""How fast is too fast: against a plain Python oracle, and at the edges of its memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.anomalies.rate import SAMPLES, Rate
from tests.dataflows.anomalies.feeding import Series, feed, minutely


def _flagged(detector: Rate, series: Series) -> list[int]:
    return np.flatnonzero(feed(detector, [series])[0].score >= detector.flag_at).tolist()


@settings(deadline=None)
@given(
    gaps=st.lists(st.sampled_from((1, 1, 1, 1, 2, 3, 9)), min_size=1, max_size=60),
    span=st.integers(1, SAMPLES - 2),
    seed=st.integers(0, 1000),
    side=st.sampled_from(("above", "below")),
)
def test_it_is_the_difference_over_the_span(gaps: list[int], span: int, seed: int, side: str) -> None:
    """Flagged is what changed faster, from the oldest rollup within the span if that is at least half a span old."""
    minutes = np.cumsum(gaps)
    values = np.random.default_rng(seed).integers(-20, 20, len(gaps)).astype(float)
    limit = 3.0 if side == "above" else -3.0
    expected = []
    for place, (now, value) in enumerate(zip(minutes, values, strict=True)):
        usable = [i for i in range(place) if span / 2 <= now - minutes[i] <= span]
        if usable:
            rate = (value - values[usable[0]]) / (now - minutes[usable[0]])
            if rate > limit if side == "above" else rate < limit:
                expected.append(place)
    detector = Rate(side, limit, span_mins=float(span))  # type: ignore[arg-type]
    assert expected == _flagged(detector, Series(minutes, values))


def test_a_long_span_is_exact_to_an_eighth() -> None:
    """Over four hours: a rise of one a minute is flagged by a limit of 0.9 soon after it began, by 1.1 never."""
    values = np.concatenate([np.zeros(500), np.arange(1, 500)])
    assert _flagged(Rate("above", 1.1, span_mins=240.0), minutely(values)) == []
    first = _flagged(Rate("above", 0.9, span_mins=240.0), minutely(values))[0]
    assert 500 + 0.9 * 240 * 7 / 8 <= first <= 500 + 0.9 * 240 + 2


def test_nothing_is_said_after_a_silence_until_half_a_span_is_known() -> None:
    """A level that changed while nobody looked is no rate."""
    minutes = np.r_[np.arange(20), 100 + np.arange(20)]
    values = np.r_[np.zeros(20), np.full(20, 1000.0)]
    assert _flagged(Rate("above", 1.0, span_mins=8.0), Series(minutes, values)) == []


@pytest.mark.parametrize("span", [1.0, 5.0, 60.0, 1440.0])
def test_one_step_is_seen_whatever_the_span(span: float) -> None:
    """A jump of a thousand is flagged in the minute it happens."""
    values = np.r_[np.zeros(2000), np.full(50, 10_000.0)]
    assert _flagged(Rate("above", 2.0, span_mins=span), minutely(values))[0] == 2000


def test_hysteresis_is_on_the_rate() -> None:
    """Between clear and limit the score keeps an episode open."""
    values = np.cumsum([0.0, 3.0, 1.5, 0.5])
    (said,) = feed(Rate("above", 2.0, clear=1.0, span_mins=1.0), [minutely(values)])
    assert [False, True, False, False] == (said.score >= 0.5).tolist()
    assert [False, True, True, False] == (said.score >= 0.25).tolist()


def test_the_band_says_how_far_it_may_have_come() -> None:
    """In the metric's unit: a span ago it was 10, at 2 a minute over 5 minutes it may be 20."""
    (said,) = feed(Rate("above", 2.0, span_mins=5.0), [minutely(np.array([10.0, 10, 10, 10, 10, 99]))])
    assert said.upper[5] == 20.0
    assert said.lower[5] == -np.inf
    assert np.isnan([said.upper[0], said.lower[0]]).all()
