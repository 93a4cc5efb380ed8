"""Ticks are left out while most of what arrives is old."""

from hypothesis import given
from hypothesis import strategies as st

from dataflows.decoding.backlog import Backlog

heard = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.integers(1, 5)), max_size=20)


@given(heard)
def test_a_worker_is_held_back_when_most_of_its_messages_are_old(messages: list[tuple[str, int, int]]) -> None:
    """By its own messages alone; half of them are not most."""
    backlog = Backlog()
    for worker, is_old, count in messages:
        backlog.heard(worker, count, is_old * count)
    for worker in "ab":
        mine = [is_old for one, is_old, count in messages if one == worker for _ in range(count)]
        assert (sum(mine) > len(mine) / 2) == backlog.holds_back(worker)


def test_a_silent_worker_is_not_held_back() -> None:
    """A quiet partition closes by ticks; and each tick begins to count anew."""
    backlog = Backlog()
    assert not backlog.holds_back("a")
    backlog.heard("a", 10, 10)
    assert backlog.holds_back("a")
    assert not backlog.holds_back("a")
