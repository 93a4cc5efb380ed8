"""Looking for cycles less often is not to stop looking."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from connectors.garbage import YOUNG_MAX, collect_rarely


class Knot:
    """An object in a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_cycles_are_still_freed() -> None:
    """A cycle that nothing refers to is gone after some times ``YOUNG_MAX`` more objects."""
    collect_rarely()
    gone = weakref.ref(Knot())
    kept = [[i] for i in range(2 * YOUNG_MAX)]
    assert kept
    assert gone() is None


def test_a_batch_of_messages_is_not_looked_at() -> None:
    """Some thousands of objects that are freed by their reference count start no collection."""
    collect_rarely()
    before = gc.get_stats()[0]["collections"]
    for _ in range(100):
        assert len([[i] for i in range(20_000)]) == 20_000
    assert gc.get_stats()[0]["collections"] == before
