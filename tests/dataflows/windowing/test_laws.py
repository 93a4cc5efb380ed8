"""The laws that hold of any log, against the oracle."""

from hypothesis import given

from tests.dataflows.windowing import laws
from tests.dataflows.windowing.budget import examples
from tests.strategies import cases, changes, crashes


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


@given(changes())
@examples(250)
def test_settings_may_change_between_runs(case):
    """Lateness, skew, age, quiet, patience and workers take effect where accounting stood, and nothing is lost."""
    laws.settings_may_change(*case)
