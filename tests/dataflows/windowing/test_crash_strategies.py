"""The generators of crashes, changed settings, placements and honest logs make what they are there for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.dataflows.windowing.fleets import late_by_maximum
from tests.dataflows.windowing.occurring import QUIETLY, all_occur, met_by
from tests.dataflows.windowing.test_honest_logs import one_wrong_clock, orderly
from tests.dataflows.windowing.test_machine import Partition
from tests.dataflows.windowing.test_placement import placements
from tests.oracles import Message, Oracle, Reading, Rules, identity
from tests.strategies import Log, Run, changes, crashes

OF_CRASHES = {
    "dies at its start",
    "dies before its first commit",
    "dies with some committed and some not",
    "dies after a commit",
    "refills",
    "a slice about the position",
    "ticks from before the resume",
    "windows closed before and after",
    "a repetition in a window, across a crash",
    "a late reading repeated across a crash",
    "a reading repeated, late, across a crash",
}
OF_CHANGES = {f"{name} changed while rows were open" for name in ("lateness", "skew", "age", "quiet", "patience")} | {
    "a worker forgotten",
    "a worker added",
    "settings that accounted for nothing",
    "a row that refills and that new limits would refuse",
    "such a row of two processes ago",
    "a window closed under each of two settings",
}


class Life:
    """What a process that is killed did, by the oracle: where it resumed, and up to where it committed."""

    def __init__(self, oracle: Oracle, log: Log, position: int, run: Run) -> None:
        self.before, self.position, self.resume = oracle, position, oracle.resume(position)
        edges = [self.resume, *(cut for cut in run.cuts if self.resume <= cut < log.end), log.end]
        self.slices = [(low, high) for low, high in pairwise(edges) if high > position][: run.fed]
        self.committed = max([position, *(high for _, high in self.slices[: run.committed])])


def lives(log: Log, runs: Sequence[tuple[Rules, Run]]) -> Iterator[Life]:
    position, oracle = log.start, Oracle(runs[0][0] if runs else Rules())
    for rules, run in runs:
        life = Life(oracle, log, position, run)
        yield life
        if life.committed == position:
            continue
        after = deepcopy(oracle)
        after.change(rules)
        after.read_all(r for r in log.records if position <= r.offset < life.committed)
        position, oracle = life.committed, after


def of_crashes(rules: Rules, log: Log, _cuts: Sequence[int], runs: Sequence[Run]) -> Iterator[str]:
    whole = Oracle(rules).read_all(log.records)
    for run, life in zip(runs, lives(log, [(rules, run) for run in runs]), strict=True):
        if not run.fed:
            yield "dies at its start"
            continue
        if life.committed == life.position:
            yield "dies before its first commit"
        else:
            yield "dies with some committed and some not" if run.committed < len(life.slices) else "dies after a commit"
        if life.resume < life.position:
            yield "refills"
        if any(low < life.position < high for low, high in life.slices):
            yield "a slice about the position"
        yield from _told_before(life, whole)


def _told_before(life: Life, whole: Oracle) -> Iterator[str]:
    """What a process has to know from what others committed."""
    before, position = life.before, life.position
    if before.ticks and all(ts for ts in before.ticks.values()):
        yield "ticks from before the resume"
    if before.closings and len(whole.closings) > len(before.closings):
        yield "windows closed before and after"

    def among(readings: Sequence[Reading]) -> set[Any]:
        return {identity(r) for r in readings if r.offset >= position}

    on_time, late = among(whole.on_time), among(whole.late)
    if {identity(r) for r in before.open()} & on_time:
        yield "a repetition in a window, across a crash"
    if {identity(r) for r in before.late} & late:
        yield "a late reading repeated across a crash"
    if {identity(r) for r in before.on_time} & late:
        yield "a reading repeated, late, across a crash"


def of_changes(runs: Sequence[tuple[Rules, Run]], log: Log) -> Iterator[str]:
    all_lives = list(lives(log, runs))
    for (old, _), (new, _), before, life in zip(runs, runs[1:], all_lives, all_lives[1:], strict=False):
        if life.before.rules is not old:
            yield "settings that accounted for nothing"
            continue
        if life.before.open():
            changed = [name for name in ("lateness", "skew", "age", "quiet", "patience") if differ(old, new, name)]
            yield from (f"{name} changed while rows were open" for name in changed)
        if life.before.ticks.keys() - set(new.workers):
            yield "a worker forgotten"
        if life.before.ticks and set(new.workers) - set(old.workers):
            yield "a worker added"
        otherwise = [r for r in life.before.open() if not -new.age <= r.event - r.append <= new.skew]
        if otherwise:
            yield "a row that refills and that new limits would refuse"
        if any(r.offset < before.position for r in otherwise) and before.committed > before.position:
            yield "such a row of two processes ago"
        if life.before.closings and old is not new:
            yield "a window closed under each of two settings"


def differ(old: Rules, new: Rules, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))


def test_processes_die_wherever_it_hurts():
    """At the start, before, amid and after commits, with rows to refill, and between two copies of a reading."""
    all_occur(OF_CRASHES, met_by(crashes(), of_crashes))


def test_settings_change_where_it_matters():
    """While rows are open, with ticks on record, and so that today's limits would judge old rows otherwise."""
    all_occur(OF_CHANGES, met_by(changes(), of_changes))


def test_partitions_are_placed_and_paced_apart():
    """Several partitions, long pauses of one of them, rows and late readings in them."""

    def hazards(rules: Rules, logs: dict[str, Log], one_way: Any, other_way: Any, _workers: int) -> Iterator[str]:
        if len(logs) > 1:
            yield "several partitions"
        if any([None] * 30 == list(items[i : i + 30]) for items in other_way.values() for i in range(len(items))):
            yield "a long pause"
        if one_way != other_way:
            yield "cut or paced otherwise"
        oracles = [Oracle(rules).read_all(log.records) for log in logs.values()]
        yield from ("rows" for oracle in oracles if oracle.rows())
        yield from ("late readings" for oracle in oracles if oracle.late)
        if sum(bool(oracle.rows()) for oracle in oracles) > 1:
            yield "rows in several partitions"

    expected = {"several partitions", "a long pause", "cut or paced otherwise", "rows", "late readings"}
    all_occur(expected | {"rows in several partitions"}, met_by(placements(), hazards))


def test_orderly_logs_close_windows_by_every_rule():
    """Law 4 is not of logs in which nothing closes, nor of ones without disorder."""

    def hazards(rules: Rules, log: Log) -> Iterator[str]:
        oracle = Oracle(rules).read_all(log.records)
        yield from oracle.reasons
        newest = -(10**18)
        for message in (r for r in log.records if isinstance(r, Message)):
            if rules.lateness and newest - message.event == rules.lateness:
                yield "as late as is allowed"
            newest = max(newest, message.event)
        if any(row.count > 1 for row in oracle.rows().values()):
            yield "a row of several readings"

    expected = {"ticks", "quiet", "patience", "as late as is allowed", "a row of several readings"}
    all_occur(expected, met_by(orderly(), hazards))


def test_wrong_clocks_would_harm_by_the_usual_rule():
    """Law 6 is of logs that close windows, and in which a maximum of event times makes honest readings late."""

    def hazards(rules: Rules, log: Log) -> Iterator[str]:
        oracle = Oracle(rules).read_all(log.records)
        yield from oracle.reasons
        if any(r.device == "honest" and not oracle.is_open(r) for r in oracle.on_time):
            yield "an honest reading in a closed window"
        if any(r.device == "wrong" for r in oracle.late):
            yield "the wrong one late"
        if late_by_maximum(log.records, rules)["honest"]:
            yield "an honest one late by the usual rule"

    expected = {"ticks", "quiet", "the wrong one late", "an honest reading in a closed window"}
    all_occur(expected | {"an honest one late by the usual rule"}, met_by(one_wrong_clock(), hazards))


def test_the_rule_machine_meets_crashes_and_changes():
    """It crashes with answers pending, resumes with rows to refill, changes settings amid, and revises rows."""
    met: Counter[str]

    class Watched(Partition):
        def _open(self, limits: Rules) -> None:
            if self.pending:
                met["a crash with answers pending"] += 1
            if self.database.progress.resume < self.database.progress.position:
                met["a resume that refills"] += 1
                met["settings changed with rows open"] += limits is not self.rules
            super()._open(limits)

        def teardown(self) -> None:
            if not hasattr(self, "oracle"):
                return
            met["several commits"] += len(self.database.rows) > 2 and bool(self.oracle.closings)
            met["a revised row"] += bool(self.database.revisions)
            met["a late reading repeated"] += bool(self.database.ledger.late_duplicates)
            met.update({f"closed by {reason}" for reason in self.oracle.reasons})
            met["ticks"] += bool(self.oracle.ticks)

    def search(found: Counter[str], _number: int) -> None:
        nonlocal met
        met = found
        run_state_machine_as_test(Watched, settings=settings(QUIETLY, max_examples=40, stateful_step_count=30))

    hazards = {"a crash with answers pending", "a resume that refills", "settings changed with rows open", "ticks"}
    hazards |= {"several commits", "a revised row", "a late reading repeated"}
    all_occur(hazards | {"closed by ticks", "closed by quiet", "closed by patience"}, search)
