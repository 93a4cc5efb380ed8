"""The suite can fail: every known way to get the core wrong breaks a law."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dataflows.windowing import Windows
from tests.dataflows.windowing import laws
from tests.dataflows.windowing.mutants import MUTANTS
from tests.dataflows.windowing.mutation import Mutant, core_of
from tests.dataflows.windowing.replay import MakeCore
from tests.strategies import cases, changes, crashes

EXAMPLES = 400
LAWS: dict[str, tuple[st.SearchStrategy[Any], Callable[..., None]]] = {
    "oracle": (cases(), laws.follows_the_oracle),
    "cuts": (cases(), laws.cuts_are_invisible),
    "crashes": (crashes(), laws.crashes_are_invisible),
    "settings": (changes(), laws.settings_may_change),
}


def breaks(law_name: str, make: MakeCore, count: int) -> bool:
    """Whether the law finds this core wrong in so many examples. An assertion must say so, a law's or its own."""
    strategy, law = LAWS[law_name]

    @seed(2)  # any would do; this one finds most of them early
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def holds(case: Any) -> None:
        law(*case, make=make)

    try:
        holds()
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.wrong)
def test_a_law_tells_a_wrong_core_from_the_right_one(mutant: Mutant):
    """The law is broken by the mutant within a few hundred examples."""
    assert breaks(mutant.law, core_of(mutant), EXAMPLES)


def test_the_right_core_passes_the_same_examples():
    """It is the mutation that the laws see, not the way mutants are made."""
    copied = core_of(Mutant("nothing", []))
    assert copied is not Windows
    assert not any(breaks(law, copied, 25) for law in LAWS)
