"""Each law in thousands of logs, where CI has the time: in its second half (`./justw test-integration`).

The first half tries hundreds of each, drawn anew in every run; found ones are kept by Hypothesis and tried first.
Marked `contract` because that half runs what is marked so; no server is needed.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dataflows.windowing import laws, test_aggregates
from tests.dataflows.windowing.budget import examples
from tests.dataflows.windowing.test_honest_logs import one_wrong_clock, orderly
from tests.dataflows.windowing.test_placement import placements
from tests.strategies import cases, changes, crashes

LAWS: dict[str, tuple[st.SearchStrategy[Any], Callable[..., None]]] = {
    "1 and 6, the oracle": (cases(), laws.follows_the_oracle),
    "2, cuts": (cases(), laws.cuts_are_invisible),
    "3, crashes": (crashes(), laws.crashes_are_invisible),
    "4, batch answer": (orderly(), laws.equals_one_group_by),
    "5, combine associates": (st.tuples(test_aggregates.several_parts), test_aggregates.associates),
    "5, combine commutes": (st.tuples(*[test_aggregates.tied_readings] * 2), test_aggregates.commutes),
    "6, wrong clocks": (one_wrong_clock(), laws.no_honest_reading_is_late),
    "7, settings": (changes(), laws.settings_may_change),
    "8, placement": (placements(), laws.placement_is_invisible),
}


@pytest.mark.contract
@pytest.mark.long
@pytest.mark.parametrize("law", LAWS)
def test_a_law_holds_in_thousands_of_logs(law: str):
    """Two thousand examples, 200 where each runs the engine twice, with pauses; besides those of the first half."""
    strategy, holds = LAWS[law]

    @given(strategy)
    @examples(200 if holds is laws.placement_is_invisible else 2_000)
    def hold(case: Any) -> None:
        holds(*case)

    hold()
