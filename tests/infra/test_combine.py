"""The SQL aggregate ``combine`` against ``schemas.aggregates`` and plain arithmetic."""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import reduce
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.migrations import migrate
from schemas import aggregates
from tests.databases import fresh_database

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

WINDOW_MS = 60_000
NAMES = ("count", "mean", "m2", "min", "max", "first", "last", "first_ts", "last_ts")
INSTANT = "timestamptz 'epoch' + {} * interval '1 millisecond'"
COLUMNS = ", ".join(INSTANT.format(name) if name.endswith("_ts") else name for name in NAMES)
SHOWN = ", ".join(f"(extract(epoch from (p).{n}) * 1000)::bigint" if n.endswith("_ts") else f"(p).{n}" for n in NAMES)
GIVEN = (
    "unnest(%b::int[], %b::int[], %b::bigint[], %b::float8[], %b::float8[], %b::float8[], %b::float8[], %b::float8[], "
    f"%b::float8[], %b::bigint[], %b::bigint[]) as t (place, part, {', '.join(NAMES)})"
)

# Hazards: both zeros, ties, values whose squares overflow or vanish, distances of two that do, denormals.
values = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 5e-324, -5e-324, 1e-160, 1e160, -1e160, 1.7e308, -1.7e308, 1e150, 1e139, 2e-140]),
    st.floats(-100, 100),
    st.floats(allow_nan=False, allow_infinity=False),
)
windows = st.lists(st.lists(values, min_size=1, max_size=4), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def connection(admin_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with fresh_database(admin_url) as conninfo:
        migrate(conninfo)
        with psycopg.connect(conninfo, autocommit=True) as found:
            yield found


def partial_of(window: int, readings: list[float]) -> dict[str, Any]:
    """The partial of one window's readings; two share an instant, as a coarse clock's do."""
    times = [window * WINDOW_MS + i // 2 for i in range(len(readings))]
    return reduce(aggregates.combine, (aggregates.partial(t, v) for t, v in zip(times, readings, strict=True)))


def asked(
    connection: psycopg.Connection[tuple[Any, ...]], query: str, partials: list[dict[str, Any]], parts: list[int]
) -> list[dict[str, Any]]:
    columns = [[one[name] for one in partials] for name in NAMES]
    found = connection.execute(query.encode(), [list(range(len(partials))), parts, *columns])
    return [dict(zip(NAMES, row, strict=True)) for row in found]


def assert_same(found: dict[str, Any], readings: list[float], expected: dict[str, Any]) -> None:
    for name in set(NAMES) - {"mean", "m2"}:
        same = (
            found[name].hex() == expected[name].hex()
            if isinstance(found[name], float)
            else found[name] == expected[name]
        )
        assert same, (name, found, expected)
    exact = [Fraction(v) for v in readings]
    mean = sum(exact) / len(exact)
    scale = max(abs(v) for v in exact)
    assert abs(Fraction(found["mean"]) - mean) <= scale * Fraction(1, 10**12) + Fraction(5e-324) * len(exact)
    m2 = sum((v - mean) ** 2 for v in exact)
    if math.isinf(found["m2"]):
        assert m2 > Fraction(1.7e308)
    else:
        assert abs(Fraction(found["m2"]) - m2) <= (m2 + scale**2 * len(exact)) * Fraction(1, 10**12) + Fraction(1e-300)


@given(windows, st.data())
@example([[1.7e308], [-1.7e308]], None)
@example([[0.0], [-0.0], [0.0]], None)
@example([[1e-160], [2e-160, 5e-324]], None)
def test_any_grouping_in_any_order_is_the_whole(connection, made, data) -> None:
    """Exact for count, extremes, first and last; mean and m2 to rounding, however large or small the values."""
    partials = [partial_of(i, window) for i, window in enumerate(made)]
    order = data.draw(st.permutations(range(len(made)))) if data else list(range(len(made)))
    parts = data.draw(st.lists(st.integers(0, 3), min_size=len(made), max_size=len(made))) if data else [0] * len(made)
    query = (
        f"select {SHOWN} from (select combine({', '.join(f'(p).{n}' for n in NAMES)}) as p from ("
        f"select combine({COLUMNS} order by place) as p from {GIVEN} group by part) as grouped) as whole"
    )
    (found,) = asked(connection, query, [partials[i] for i in order], parts)
    assert_same(found, [v for window in made for v in window], reduce(aggregates.combine, partials))


@given(windows, st.integers(0, 3), st.integers(0, 2))
def test_each_frame_of_a_window_is_its_own_whole(connection, made, preceding, following) -> None:
    """combine(…) over (rows between …): each row has what lies in its frame, and nothing of another."""
    partials = [partial_of(i, window) for i, window in enumerate(made)]
    frame = f"order by place rows between {preceding} preceding and {following} following"
    query = (
        f"select {SHOWN} from (select place, combine({COLUMNS}) over ({frame}) as p from {GIVEN}) as f order by place"
    )
    found = asked(connection, query, partials, [0] * len(made))
    for i, row in enumerate(found):
        first, end = max(0, i - preceding), i + following + 1
        assert_same(
            row, [v for window in made[first:end] for v in window], reduce(aggregates.combine, partials[first:end])
        )


def test_workers_of_one_query_give_the_same(connection) -> None:
    """The plan has partial aggregates, and their sum is what one process finds."""
    with connection.transaction():
        connection.execute(
            "create table parallel_source as select 1::bigint as count, i::float8 as mean, 0::float8 as m2, "
            "i::float8 as min, i::float8 as max, i::float8 as first, i::float8 as last, to_timestamp(i) as first_ts, "
            "to_timestamp(i) as last_ts from generate_series(1, 20000) as i; analyze parallel_source"
        )
        connection.execute(
            "set local parallel_setup_cost = 0; set local parallel_tuple_cost = 0; "
            "set local min_parallel_table_scan_size = 0; set local max_parallel_workers_per_gather = 2"
        )
        query = f"select (combine({', '.join(NAMES)})).* from parallel_source"
        plan = "\n".join(line for (line,) in connection.execute(f"explain {query}".encode()))
        assert "Partial Aggregate" in plan, plan
        count, mean, m2, low, high, first, last, *_ = connection.execute(query.encode()).fetchone()
    assert (count, low, high, first, last) == (20_000, 1.0, 20_000.0, 1.0, 20_000.0)
    assert math.isclose(mean, 10_000.5, rel_tol=1e-12)
    assert math.isclose(m2, (20_000**3 - 20_000) / 12, rel_tol=1e-10)


def test_the_type_has_the_columns_of_the_aggregates(connection) -> None:
    """An aggregate that was added in Python is missing in SQL: this says so."""
    found = connection.execute(
        "select attname, format_type(atttypid, null) from pg_attribute "
        "where attrelid = 'rollup_partial'::regclass and attnum > 0 order by attnum"
    ).fetchall()
    said = {"timestamp with time zone": "timestamptz"}
    assert [(name, said.get(kind, kind)) for name, kind in found] == [(c.name, c.sql) for c in aggregates.COLUMNS]


def test_no_rows_combine_to_nothing_and_nulls_count_nothing(connection) -> None:
    """As every aggregate: an outer join may bring rows without a partial."""
    query = "select combine(null, null, null, null, null, null, null, null, null) from generate_series(1, %s)"
    assert connection.execute(query, [0]).fetchone() == (None,)
    assert connection.execute(query, [3]).fetchone() == (None,)
