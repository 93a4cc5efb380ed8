"""The laws that hold of any log, against the oracle."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.dataflows.windowing import laws
from tests.dataflows.windowing.budget import examples
from tests.oracles import Rules
from tests.strategies import Log, cases, cuts, logs, rules


@st.composite
def crashes(draw: st.DrawFn) -> tuple[Rules, Log, list[int], list[tuple[int, int]]]:
    """A case, and runs over it that end in a crash: how many slices each was fed, and how many of them it committed."""
    runs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=5)
    return *draw(cases()), draw(runs)


@given(cases())
@examples(400)
def test_every_answer_is_the_oracles_at_every_cut(case):
    """Rows, late readings, closings, refusals, ledger and progress equal those of a plain reading of the log."""
    laws.follows_the_oracle(*case)


@given(cases())
@examples(300)
def test_cuts_are_invisible(case):
    """One batch and any cutting of it, empty and one-row slices included, answer the same to the bit."""
    laws.cuts_are_invisible(*case)


@given(crashes())
@examples(300)
def test_crashes_are_invisible(case):
    """Crash before or after a commit as often as you like: the same rows, and none emitted twice."""
    laws.crashes_are_invisible(*case)


@st.composite
def changes(draw: st.DrawFn) -> tuple[list[tuple[Rules, int, int]], Log, list[int]]:
    """A log, and runs over it with different settings, each ended by a crash."""
    first = draw(rules())
    skews, ages = st.sampled_from((60_000, 0, 5_000)), st.sampled_from((3_600_000, 100_000))
    judging = st.builds(replace, st.just(first), skew=skews, age=ages)
    variants = [first, draw(judging), draw(st.one_of(judging, rules(length=first.length)))]
    log = draw(logs(draw(st.sampled_from(variants))))
    runs = draw(st.lists(st.tuples(st.sampled_from(variants), st.integers(1, 4), st.integers(0, 4)), max_size=5))
    return [*runs, (draw(st.sampled_from(variants)), 99, 99)], log, draw(cuts(log))


@given(changes())
@examples(250)
def test_settings_may_change_between_runs(case):
    """Lateness, skew, age, quiet, patience and workers take effect where accounting stood, and nothing is lost."""
    laws.settings_may_change(*case)
