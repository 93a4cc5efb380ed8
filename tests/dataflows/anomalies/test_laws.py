"""Laws of every detector of the registry. A detector added there is held to them without a line here."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dataflows.anomalies.protocol import Detector, Rollups, blank, bytes_per_series, grown
from dataflows.anomalies.registry import DETECTORS
from tests.dataflows.anomalies.feeding import Said, Series, feed, judge, minutely, steps, watched

EVERY = pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS)
UNIT_FREE = pytest.mark.parametrize(
    "detector", [each for each in DETECTORS.values() if each.unit_free], ids=lambda each: each.name
)
THOROUGH = settings(
    max_examples=settings.default.max_examples // 10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)  # an example costs seconds: no shrinking

# Levels that a series dwells on: repeats and returns are likely, and so are steps back to a value known.
LEVELS = (0.0, 0.0, 1.0, 1.0, 1.0, -3.0, 0.25, 20.0, 20.5, 1e6)
HUGE = (1.7e308, -1.7e308, 5e-324, 1e300, 0.0, -0.0)


@st.composite
def one_series(draw: st.DrawFn, levels: tuple[float, ...] = LEVELS, rows_max: int = 260) -> Series:
    """Stretches of a level, noisy or exactly constant, with gaps between rows and a start of its own.

    Long enough for warm-up to end and blocks to be remembered; noise is dyadic, so that sums with small integers
    are exact.
    """
    value: list[float] = []
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(1, 5))):
        rows = draw(st.sampled_from((1, 2, 30, 51, 150)))
        level, noise = draw(st.sampled_from(levels)), draw(st.sampled_from((0.0, 0.0, 1.0, 0.125)))
        value += (level + noise * rng.integers(-64, 65, rows) / 64).tolist()
    value = value[:rows_max]
    gap = draw(st.sampled_from((0.0, 0.1, 0.5)))
    minutes = np.cumsum(1 + (rng.random(len(value)) < gap) * rng.integers(0, 90, len(value)))
    return Series(minutes + draw(st.sampled_from((0, 0, 7, 5000))), np.array(value))


def assert_equal(expected: Said, actual: Said, first: int | None = None) -> None:
    """Equal to the bit, over the first rows."""
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(one[:first], other[:first])


@EVERY
@THOROUGH
@given(series=one_series(), cut=st.floats(0, 1))
def test_no_score_changes_when_rows_are_appended(detector: Detector, series: Series, cut: float) -> None:
    """What was said of a row stands, whatever comes after it."""
    rows = int(cut * len(series.value))
    (whole,) = feed(detector, [series])
    (prefix,) = feed(detector, [Series(series.minute[:rows], series.value[:rows])])
    assert_equal(prefix, whole, rows)


@EVERY
@THOROUGH
@given(many=st.lists(one_series(), min_size=2, max_size=4))
def test_series_do_not_influence_each_other(detector: Detector, many: list[Series]) -> None:
    """Side by side, in any position, a series is judged as it is alone: late starts and gaps included."""
    together = feed(detector, many)
    for place, series in enumerate(many):
        assert_equal(feed(detector, [series])[0], together[place])


@EVERY
@THOROUGH
@given(many=st.lists(one_series(rows_max=130), min_size=2, max_size=4))
def test_absence_is_judged_alone_too(detector: Detector, many: list[Series]) -> None:
    """Where every minute closes, with rollups in it or not, what is said of a series is its own affair, said once a
    minute at most."""
    together = watched(detector, many, 300)
    for place, series in enumerate(many):
        minutes = [minute for minute, _ in together[place]]
        assert sorted(set(minutes)) == minutes
        assert watched(detector, [series], 300)[0] == together[place]


@EVERY
@THOROUGH
@given(many=st.lists(one_series(), min_size=2, max_size=3), backwards=st.booleans())
def test_the_batching_of_series_does_not_matter(detector: Detector, many: list[Series], backwards: bool) -> None:
    """A minute in one step, or a step for each of its series in any order, gives the same bits."""
    single = []
    for step in steps(many):
        places = range(len(step.series))
        single += [_only(step, place) for place in (reversed(places) if backwards else places)]
    _, apart = judge(detector, blank(detector, len(many)), single, len(many))
    for expected, actual in zip(feed(detector, many), apart, strict=True):
        assert_equal(expected, actual)


@EVERY
@THOROUGH
@given(many=st.lists(one_series(), min_size=1, max_size=3), cut=st.floats(0, 1))
def test_a_snapshot_carries_on_where_it_was_taken(detector: Detector, many: list[Series], cut: float) -> None:
    """State written out, read back and given room for more series continues to the bit."""
    todo = steps(many)
    first, rest = todo[: int(cut * len(todo))], todo[int(cut * len(todo)) :]
    state, before = judge(detector, blank(detector, len(many)), first, len(many))
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    with np.load(file) as read:
        restored = grown(dict(read), len(many) + 3)
    _, after = judge(detector, restored, rest, len(many))
    for place, whole in enumerate(feed(detector, many)):
        parts = zip(before[place], after[place], strict=True)
        assert_equal(whole, Said(*(np.concatenate(both) for both in parts)))


@EVERY
@THOROUGH
@given(series=one_series())
def test_a_step_changes_neither_of_its_arguments(detector: Detector, series: Series) -> None:
    """Steps are pure: the state before can be gone back to, and gives the same again."""
    state = blank(detector, 1)
    for step in steps([series])[:120]:
        kept = {name: array.copy() for name, array in state.items()}
        after, said = detector.step(state, step)
        again, repeated = detector.step(state, step)
        for name, array in kept.items():
            np.testing.assert_array_equal(array, state[name])
            np.testing.assert_array_equal(after[name], again[name])
        np.testing.assert_array_equal(said.score, repeated.score)
        state = after


@EVERY
@THOROUGH
@given(series=st.one_of(one_series(), one_series(levels=LEVELS + HUGE * 3)))
def test_scores_lie_between_zero_and_one(detector: Detector, series: Series) -> None:
    """Whatever finite values come, scores are numbers in [0, 1], and so is what explains them a number or unknown."""
    (said,) = feed(detector, [series])
    assert ((said.score >= 0) & (said.score <= 1)).all()
    known = ~np.isnan(said.expected)
    assert ((said.lower <= said.expected) & (said.expected <= said.upper))[known].all()


@EVERY
@THOROUGH
@given(series=one_series())
def test_state_keeps_its_stated_size(detector: Detector, series: Series) -> None:
    """Rows never add to the state."""
    state, _ = judge(detector, blank(detector, 1), steps([series]), 1)
    assert sum(array.nbytes for array in state.values()) == bytes_per_series(detector)
    assert {name: array.dtype for name, array in state.items()} == {
        name: np.dtype(field.dtype) for name, field in detector.fields.items()
    }


@UNIT_FREE
@THOROUGH
@given(series=one_series(levels=LEVELS[:-1]), shift=st.integers(-1000, 1000), scale=st.floats(1e-9, 1e9))
def test_scores_hang_neither_on_unit_nor_on_zero(detector: Detector, series: Series, shift: int, scale: float) -> None:
    """Values shifted (where exactly so) and scaled score the same, to 1e-9."""
    (plain,) = feed(detector, [series])
    (other,) = feed(detector, [Series(series.minute, (series.value + shift) * scale)])
    np.testing.assert_allclose(other.score, plain.score, rtol=1e-9, atol=1e-12)


@UNIT_FREE
def test_a_constant_series_never_flags(detector: Detector) -> None:
    """Nothing happens, nothing is said."""
    levels = [0.0, 0.1, -7.0, 1e-300, 1e300]
    many = feed(detector, [minutely(np.full(1500, level)) for level in levels])
    assert [level for level, said in zip(levels, many, strict=True) if said.score.any()] == []


def _backgrounds() -> dict[str, np.ndarray]:
    rng, rows = np.random.default_rng(8), np.arange(2500)
    return {
        "constant": np.full(2500, 3.0),
        "noise": rng.normal(50, 1, 2500),
        "day": 20 + 5 * np.sin(2 * np.pi * rows / 1440) + rng.normal(0, 0.3, 2500),
        "switching": np.where(rows // 30 % 2 == 0, 1.0, 5.0) + rng.normal(0, 0.1, 2500),
        "walk": np.cumsum(rng.normal(0, 0.05, 2500)) + rng.normal(0, 1, 2500),
    }


@UNIT_FREE
def test_one_spike_flags_once(detector: Detector) -> None:
    """A single row far from everything is flagged, when it happens, and no row before or after it is."""
    spiked = {}
    for at, height in itertools.product((700, 1999), (-30.0, 30.0)):
        for name, value in _backgrounds().items():
            value[at] += height
            spiked[name, at, height] = minutely(value)
    many = feed(detector, [*spiked.values()])
    flagged = {
        key: np.flatnonzero(said.score >= detector.flag_at).tolist() for key, said in zip(spiked, many, strict=True)
    }
    assert {key: [key[1]] for key in spiked} == flagged


@UNIT_FREE
def test_missing_minutes_are_no_anomaly(detector: Detector) -> None:
    """A calm series that reports now and then, and once not for a day, is not flagged for it."""
    rng = np.random.default_rng(3)
    minutes = np.cumsum(rng.integers(1, 20, 2000))
    minutes[1000:] += 1440
    (said,) = feed(detector, [Series(minutes, rng.normal(5, 1, 2000))])
    assert (said.score < detector.flag_at).all()


def _only(step: Rollups, place: int) -> Rollups:
    here = slice(place, place + 1)
    return Rollups.of_values(step.series[here], step.bucket[here], step.mean[here])
