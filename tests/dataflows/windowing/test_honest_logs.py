"""Laws 4 and 6: what holds where devices, or all but one of them, tell the time right."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.progress import Progress
from tests.dataflows.windowing import laws
from tests.dataflows.windowing.budget import examples
from tests.dataflows.windowing.replay import answer, open_core, run, slice_of
from tests.oracles import Message, Oracle, Rules, Tick
from tests.strategies import Log

BASE = 1_763_700_000_000
LENGTH = 60_000


@st.composite
def orderly(draw: st.DrawFn) -> tuple[Rules, Log]:
    """Logs whose disorder is within the allowed lateness: no record is older than what came before by more than that.

    In live flow and while a backlog drains, with honest ticks: what a worker says it has sent is in the log.
    """
    rules = Rules(
        lateness=draw(st.sampled_from((10_000, 0, 2_500))),
        quiet=draw(st.sampled_from((0, 1_000, 10_000))),
        patience=draw(st.sampled_from((0, 5_000, 300_000))),
        workers=("ingest-0",) * draw(st.integers(0, 1)),
    )
    steps = draw(
        st.lists(st.tuples(st.sampled_from((0, 1, 900, 5_000, 30_000, 90_000)), st.integers(0, 255)), max_size=40)
    )
    behind = draw(st.sampled_from((0, 3_600_000)))
    newest, records = BASE, []
    for offset, (step, choice) in enumerate(steps):
        newest += step
        if choice % 5 == 4:
            records.append(Tick(offset, newest + behind, "ingest-0", newest))
            continue
        event = newest - (0, rules.lateness, rules.lateness // 2, 0)[choice // 5 % 4]
        readings = (("t", float(choice)), ("h", 1.0))[: 1 + choice % 2]
        records.append(Message(offset, newest + behind + choice % 3, event, "ab"[choice // 20 % 2], readings))
    return rules, Log(tuple(records), 0, len(records))


@given(orderly())
@examples(200)
def test_rows_equal_one_group_by_where_disorder_is_within_the_allowed_lateness(case):
    """Law 4: nothing is late, and closed rows are those of a group by over the whole log."""
    laws.equals_one_group_by(*case)


@st.composite
def one_wrong_clock(draw: st.DrawFn) -> tuple[Rules, Log]:
    """Honest devices in order; beside them one that says anything.

    The log is never silent for as long as ``quiet``, but for one outage in live flow, after which the honest come back
    within that time, and the wrong one may come first. Append times are honest, ticks too; patience is longer than all.
    """
    rules = Rules(patience=10**9, workers=("ingest-0",) * draw(st.integers(0, 1)))
    speed = draw(st.sampled_from((1, 5, 20)))
    behind = draw(st.sampled_from((0, 600_000)))
    gaps = draw(st.lists(st.integers(0, rules.quiet - 1), min_size=1, max_size=30))
    lies = draw(st.lists(st.integers(-300_000, 300_000), min_size=len(gaps), max_size=len(gaps)))
    kinds = draw(st.lists(st.integers(0, 3), min_size=len(gaps), max_size=len(gaps)))
    outage = draw(st.sampled_from((0, 15_000, 90_000, 900_000))) if not behind else 0
    back = draw(st.integers(0, len(gaps)))  # the first to be appended after the outage
    cut = BASE + sum(gaps[:back])
    records: list[Message | Tick] = []
    for number, (gap, lie, kind, at) in enumerate(zip(gaps, lies, kinds, accumulate(gaps), strict=True)):
        now, true = BASE + at, BASE + (at if not behind else at * speed - behind)
        if number >= back and outage:
            now, true = now + outage, cut + (now - cut) * speed
        if number == back and outage and kind:
            first = cut + outage
            records.append(Message(len(records), first, first + lie, "wrong", (("t", 2.0),)))
        records.append(Message(len(records), now, min(true, now), "honest", (("t", float(gap)),)))
        if kind == 3:
            records.append(Tick(len(records), now, "ingest-0", min(true, now)))
        elif kind:
            records.append(Message(len(records), now, true + lie, "wrong", (("t", 1.0),)))
    return rules, Log(tuple(records), 0, len(records))


@given(one_wrong_clock())
@examples(200)
def test_one_wrong_clock_makes_no_honest_reading_late(case):
    """Law 6: whatever one device says the time is, no reading of another is late."""
    laws.no_honest_reading_is_late(*case)


def test_a_wrong_clock_does_close_windows_where_all_are_quiet():
    """The law above is not empty: the wrong device's readings are what closes the honest one's window in a backlog."""
    records = (
        Message(0, BASE, BASE - 600_000, "honest", (("t", 1.0),)),
        Message(1, BASE, BASE - 300_000, "wrong", (("t", 1.0),)),
        Message(2, BASE + 10_000, BASE - 300_000, "wrong", (("t", 2.0),)),
    )
    assert len(answer(run(Rules(), Log(records, 0, 3))).rollups) == 1


def test_only_records_move_what_is_closed():
    """Feeding slices without records moves nothing, however many offsets they cover."""
    core = open_core(Rules(), Progress.begin(0))
    record = Message(0, BASE, BASE, "a", (("t", 1.0),))
    core.feed(slice_of(Log((record,), 0, 1), 0, 1))
    outcome = core.feed(slice_of(Log((), 1, 10**6), 1, 10**6))
    assert outcome.progress.closed_until is None
    assert outcome.counts.gaps == 10**6 - 1


@pytest.mark.parametrize("ticks", [0, 1])
def test_a_silence_of_years_is_one_leap(ticks):
    """Half a million empty windows close at one record, by ticks or by patience, at once."""
    year = 365 * 86_400_000
    first = Message(0, BASE, BASE, "a", (("t", 1.0),))
    then = [
        Message(1, BASE + year, BASE + year, "a", (("t", 2.0),)),
        Tick(2, BASE + year, "ingest-0", BASE + year)
        if ticks
        else Message(2, BASE + year + 300_000, BASE + year, "a", (("t", 3.0),)),
    ]
    rules = Rules(workers=("ingest-0",))
    whole = answer(run(rules, Log((first, *then), 0, 3)))
    assert len(whole.closed) == (year - rules.lateness) // LENGTH
    assert whole.closed[-1] <= BASE + year - rules.lateness
    assert len(whole.rollups) == 1


def test_a_leap_out_of_1970_tells_of_no_more_windows_than_can_be_told():
    """A clock that stood at 1970 when the log began: 29 million empty windows close, and each would be a record."""
    begun = Message(0, 1_000, 1_000, "a", (("t", 1.0),))
    amid = Message(1, BASE // 2, BASE // 2, "a", (("t", 2.0),))
    now = Message(2, BASE, BASE, "a", (("t", 3.0),))
    rules = Rules(workers=("ingest-0",))
    (outcome,) = run(rules, Log((begun, amid, now, Tick(3, BASE, "ingest-0", BASE)), 0, 4))
    assert len(outcome.closed) < 25_000  # of two leaps: 1997 has a reading, too
    until = outcome.progress.closed_until
    assert until is not None
    assert until > BASE - rules.lateness - LENGTH
    held = (LENGTH, BASE // 2 // LENGTH * LENGTH + LENGTH)
    assert [end for end in outcome.closed if end in {*held, until}] == [*held, until]
    assert list(outcome.closed) == sorted(set(outcome.closed))


def test_the_oracle_leaps_as_the_core_does():
    """A silence short enough for the oracle to walk through: the same ends."""
    records = (
        Message(0, BASE, BASE, "a", (("t", 1.0),)),
        Message(1, BASE + 7_200_000, BASE + 7_200_000, "a", (("t", 2.0),)),
        Message(2, BASE + 7_500_000, BASE + 7_200_000, "a", (("t", 3.0),)),
    )
    log = Log(records, 0, 3)
    oracle = Oracle(Rules()).read_all(records)
    assert [end for _, end in oracle.closings] == answer(run(Rules(), log)).closed
