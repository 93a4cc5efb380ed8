"""Law 5, and how right the numbers are."""

import math
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import aggregates
from schemas.aggregates import AGGREGATES, ROLLUPS, Groups
from tests.dataflows.windowing.budget import examples
from tests.dataflows.windowing.replay import bits
from tests.oracles import Reading, rollups, row_of
from tests.strategies import VALUES

EXACT = ("count", "min", "max", "first", "last", "first_ts", "last_ts")

values = st.one_of(st.sampled_from(VALUES), st.floats(allow_nan=False, allow_infinity=False), st.floats(-50, 50))
tied_readings = st.lists(st.tuples(st.integers(-2, 3), values), min_size=1, max_size=12)  # few times: many ties
several_parts = st.lists(tied_readings, min_size=2, max_size=4)


def partial_of(readings):
    """One partial, folded reading by reading in the order of the log."""
    return reduce(aggregates.combine, (aggregates.partial(event, value) for event, value in readings))


def reduced(readings):
    """The same readings, by the way of a closed window."""
    ordered = sorted(readings, key=lambda reading: reading[0])
    groups = Groups(np.array([value for _, value in ordered]), np.array([event for event, _ in ordered]), np.array([0]))
    return {name: column[0].item() for name, column in aggregates.reduce(groups).items()}


def oracle_row(readings):
    """The oracle's row; readings of one time and value are kept apart, for nothing is left out here."""
    return row_of([Reading(i, 0, event, "d", "m", value) for i, (event, value) in enumerate(readings)])


@given(tied_readings)
@example([(0, 1e-300), (1, 0.0)])  # squares that underflow: found against the oracle, whose fractions do not
@example([(0, 0.0), (0, -0.0)])  # which zero is the least, and which came first
@example([(0, 1.7e308), (1, 1.7e308), (2, -1.7e308)])  # the sum overflows, and so do deviations
@examples(150)
def test_reducing_gives_what_an_exact_sum_gives(readings):
    """Count, extremes and ends are exact to the sign of a zero, mean within 4 ulp of the largest value."""
    assert oracle_row(readings).differences(reduced(readings)) == []


def associates(parts):
    """Law 5: however partials are grouped, exactly the same ends and extremes, the same moments to rounding."""
    partials = [partial_of(part) for part in parts]
    left = reduce(aggregates.combine, partials)
    right = reduce(lambda b, a: aggregates.combine(a, b), reversed(partials))
    assert {name: bits(left[name]) for name in EXACT} == {name: bits(right[name]) for name in EXACT}
    exact = oracle_row([reading for part in parts for reading in part])
    assert exact.differences(left, slack=16) == []
    assert exact.differences(right, slack=16) == []


def commutes(earlier, later):
    """Law 5: order matters only to ties of time, which go by offset: the first of them opens, the last closes."""
    a, b = partial_of(earlier), partial_of(later)
    ab, ba = aggregates.combine(a, b), aggregates.combine(b, a)
    ties = {end for end in ("first", "last") if a[f"{end}_ts"] == b[f"{end}_ts"]}
    assert {n: bits(ab[n]) for n in EXACT if n not in ties} == {n: bits(ba[n]) for n in EXACT if n not in ties}
    assert ab["mean"] == pytest.approx(ba["mean"], rel=1e-12, abs=4 * math.ulp(max(abs(ab["min"]), abs(ab["max"]))))
    if "first" in ties:
        assert bits(ab["first"]) == bits(a["first"])
    if "last" in ties:
        assert bits(ab["last"]) == bits(b["last"])


@given(several_parts)
@examples(300)
def test_combining_is_associative(parts):
    """However partials are grouped."""
    associates(parts)


@given(tied_readings, tied_readings)
@examples(300)
def test_combining_is_commutative(earlier, later):
    """Ends by ties of time; moments to rounding."""
    commutes(earlier, later)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=500))
@examples(150)
def test_a_mean_is_within_4_ulp_of_the_exact_one(numbers):
    """|mean − fsum/n| is at most 4 ulp of the largest absolute value."""
    mean = reduced([(i, x) for i, x in enumerate(numbers)])["mean"]
    assert abs(mean - math.fsum(numbers) / len(numbers)) <= 4 * math.ulp(max(map(abs, numbers)))


@pytest.mark.parametrize("how", [reduced, partial_of])
def test_the_variance_of_small_swings_about_a_large_mean_is_right(how):
    """10^6 readings at 101,325 Pa ± 10 mPa: sums of squares would lose the variance altogether."""
    count = 1_000_000 if how is reduced else 50_000
    swings = np.random.default_rng(7).normal(0, 0.01, count)
    numbers = (101_325.0 + swings).tolist()
    row = how(list(enumerate(numbers)))
    mean = math.fsum(numbers) / count
    m2 = math.fsum((x - mean) ** 2 for x in numbers)
    assert row["m2"] == pytest.approx(m2, rel=1e-9)
    assert math.sqrt(row["m2"] / (count - 1)) == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("how", [reduced, partial_of])
def test_two_readings_near_the_largest_double_have_a_finite_mean(how):
    """Their sum overflows, their mean does not; the squares of a distance that wide do, and say so."""
    assert how([(0, 1.7e308), (1, 1.7e308)])["mean"] == 1.7e308
    apart = how([(0, 1.7e308), (1, -1.7e308)])
    assert apart["mean"] == 0.0
    assert apart["m2"] == math.inf


def test_a_stuck_sensor_has_no_variance_at_all():
    """Equal values have that mean, to the bit, and m2 is zero."""
    row = reduced([(i, 0.1) for i in range(10_007)])
    assert (row["mean"], row["m2"]) == (0.1, 0.0)


def test_the_schema_is_made_from_the_list():
    """Each aggregate's columns stand in the rollup's schema, once, after its key."""
    columns = [column.name for aggregate in AGGREGATES for column in aggregate.columns]
    assert ROLLUPS.names() == ["bucket", "device_id", "metric", *columns]
    assert len(set(columns)) == len(columns)
    assert all(a != b for a, b in pairwise(ROLLUPS.names()))


def test_the_oracle_agrees_with_itself_on_repeats():
    """The oracle's plain group leaves out a repeated reading and keeps another value of the same time."""
    one = Reading(0, 0, 5, "d", "m", 1.0)
    rows = rollups([one, one._replace(offset=1), one._replace(offset=2, value=2.0)], 60_000)
    assert rows[0, "d", "m"].count == 2
