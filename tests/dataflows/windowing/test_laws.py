"""The laws that hold of any log, against the oracle."""

from hypothesis import given
from hypothesis import strategies as st

from tests.dataflows.windowing import laws
from tests.dataflows.windowing.budget import examples
from tests.strategies import Log, cases, cuts, logs, rules

CRASHES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=4)


@given(cases())
@examples(600)
def test_every_answer_is_the_oracles_at_every_cut(case):
    """Rows, late readings, closings, refusals, ledger and progress equal those of a plain reading of the log."""
    laws.follows_the_oracle(*case)


@given(cases())
@examples(400)
def test_cuts_are_invisible(case):
    """One batch and any cutting of it, empty and one-row slices included, answer the same to the bit."""
    laws.cuts_are_invisible(*case)


@given(cases(), CRASHES)
@examples(400)
def test_crashes_are_invisible(case, runs):
    """Crash before or after a commit as often as you like: the same rows, and none emitted twice."""
    laws.crashes_are_invisible(*case, runs)


@st.composite
def changes(draw: st.DrawFn) -> tuple[list, Log, list[int]]:
    """A log, and runs over it with different settings, each ended by a crash."""
    length = draw(st.sampled_from((60_000, 300_000)))
    variants = draw(st.lists(rules(length=length), min_size=2, max_size=3))
    log = draw(logs(variants[0]))
    runs = draw(st.lists(st.tuples(st.sampled_from(variants), st.integers(0, 6), st.integers(0, 6)), max_size=5))
    return [*runs, (variants[-1], 99, 99)], log, draw(cuts(log))


@given(changes())
@examples(400)
def test_settings_may_change_between_runs(case):
    """Lateness, skew, age, quiet, patience and workers take effect where accounting stood, and nothing is lost."""
    laws.settings_may_change(*case)
