"""What comes again is recognised by its value, within a bound that is kept."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dataflows.redelivery import Appended, runs
from schemas.arrivals import Arrivals


@given(values_max=st.integers(1, 20), count=st.integers(0, 100))
def test_the_last_values_are_known_and_old_ones_forgotten(values_max: int, count: int) -> None:
    """At least ``values_max`` of them, at most twice as many."""
    appended = Appended(values_max)
    values = [b"%d" % n for n in range(count)]
    appended.add(values)
    known = [value in appended for value in values]
    assert all(known[-values_max:])
    assert sum(known) <= 2 * values_max


@given(before=st.integers(0, 50), values_max=st.integers(1, 20))
def test_what_was_read_back_is_known_until_as_many_as_may_come_again_were_appended(
    before: int, values_max: int
) -> None:
    """However much that was: of several partitions it is more than can come again."""
    values = [b"before %d" % n for n in range(before)]
    appended = Appended(values_max, values)
    appended.add(b"%d" % n for n in range(values_max))
    assert all(value in appended for value in values)
    appended.add([b"one more"])
    assert not any(value in appended for value in values)


@given(st.lists(st.booleans(), max_size=30))
def test_runs_are_the_arrivals_in_order_each_of_one_kind(dups: list[bool]) -> None:
    """Joined they are what was cut, and no two neighbours are alike."""
    count = len(dups)
    arrivals = Arrivals(
        "w",
        [f"t{n}" for n in range(count)],
        [b"%d" % n for n in range(count)],
        [None if n % 2 else f"c{n}" for n in range(count)],
        [*range(count)],
        dups,
    )
    parts = list(runs(arrivals))
    assert [dup for dup, part in parts for _ in part.dups] == dups
    assert all({*part.dups} <= {dup} for dup, part in parts)
    for name in ("topics", "payloads", "content_types", "ingest_times"):
        assert [each for _, part in parts for each in getattr(part, name)] == getattr(arrivals, name)
    assert all(first != second for (first, _), (second, _) in pairwise(parts))
