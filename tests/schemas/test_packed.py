"""Strings in one piece are the sequence they were made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.packed import Packed


@given(st.lists(st.binary(max_size=3), max_size=9), st.integers(-10, 10), st.integers(-10, 10))
def test_it_is_the_sequence_it_was_made_of(values: list[bytes], low: int, high: int) -> None:
    """By length, by iteration, by index from either end, by slice; empty strings and no strings included."""
    packed = Packed.of(values)
    assert values == list(packed)
    assert len(values) == len(packed)
    assert values == [packed[at] for at in range(len(values))]
    assert values[::-1] == [packed[-at] for at in range(1, len(values) + 1)]
    assert values[low:high] == list(packed[low:high])
    assert bool(values) == bool(packed)
    with pytest.raises(IndexError):
        packed[len(values)]


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=1))
def test_a_stride_is_the_size_of_all(values: list[bytes]) -> None:
    """And 0 where sizes differ."""
    assert (len(values[0]) if len(set(map(len, values))) == 1 else 0) == Packed.of(values).stride


def test_what_is_in_one_piece_is_not_copied() -> None:
    """Decoders ask for it whatever they are given."""
    packed = Packed.of([b"a", b"bc"])
    assert packed is Packed.of(packed)
