"""That generators make what they are there for: a law which hazards never meet holds nothing."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

QUIETLY = settings(
    max_examples=250,
    phases=[Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
ROUNDS_MAX = 12


def all_occur(hazards: set[str], search: Callable[[Counter[str], int], object]) -> None:
    """Each hazard is met at least four times in some thousand examples, most often in the first hundreds, and none is
    met that is not listed. What a seed makes depends on the modules that Hypothesis finds loaded, so one is not enough.
    """
    met: Counter[str] = Counter()
    for number in range(ROUNDS_MAX):
        search(met, number)
        assert set(met) <= hazards
        if all(met[hazard] >= 4 for hazard in hazards):
            return
    assert {hazard: met[hazard] for hazard in hazards if met[hazard] < 4} == {}


def met_by(
    strategy: st.SearchStrategy[Any], hazards: Callable[..., Iterator[str]]
) -> Callable[[Counter[str], int], object]:
    """A search of some hundred examples, which counts those that meet a hazard."""

    def search(met: Counter[str], number: int) -> None:
        @seed(number)
        @QUIETLY
        @given(strategy)
        def meet(case: Any) -> None:
            met.update(set(hazards(*case)))

        meet()

    return search
