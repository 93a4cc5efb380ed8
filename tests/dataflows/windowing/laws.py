"""The laws of the window core that hold of any log, as functions of a case: for property tests and for mutants."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataflows.windowing import Windows
from schemas.progress import Counts, Progress
from tests.dataflows.windowing import engine
from tests.dataflows.windowing.replay import (
    Database,
    MakeCore,
    answer,
    compare_ledger,
    compare_rows,
    exact,
    feed,
    open_core,
    rows_by_key,
    run,
    slices,
)
from tests.oracles import Message, Oracle, Reading, Rules, rollups
from tests.strategies import ALL, Log, Run


def follows_the_oracle(rules: Rules, log: Log, cuts: Sequence[int], make: MakeCore = Windows) -> None:
    """Laws 1 and 6: at every cut rows, late readings, closings, refusals, ledger and progress are the oracle's."""
    core = open_core(rules, Progress.begin(log.start), make)
    oracle, counts = Oracle(rules), Counts()
    for part in slices(log, cuts):
        late, closings, refused = len(oracle.late), len(oracle.closings), len(oracle.refused)
        closed_before = oracle.closed_until
        oracle.read_all(log.between(part.start, part.end).records)
        outcome = core.feed(part)
        counts += outcome.counts

        assert list(outcome.closed) == [end for _, end in oracle.closings[closings:]]
        compare_rows(
            {k: row for k, row in oracle.rows().items() if closed_before is None or k[0] >= closed_before},
            rows_by_key([outcome]),
        )
        assert exact(outcome.late.select("offset", "append_time", "event_time", "device_id", "metric")) == [
            tuple(reading)[:5] for reading in oracle.late[late:]
        ]
        by_core = [(one.offset, one.reason) for one in outcome.refused if one.reason.startswith("timestamp")]
        assert by_core == oracle.refused[refused:]
        compare_ledger(oracle, log.start, part.end, counts)
        progress = outcome.progress
        assert progress.closed_until == oracle.closed_until
        assert progress.closed_until is None or closed_before is None or progress.closed_until >= closed_before
        assert (progress.position, progress.resume) == (part.end, oracle.resume(part.end))
        assert dict(progress.ticks) == oracle.ticks


def cuts_are_invisible(rules: Rules, log: Log, cuts: Sequence[int], make: MakeCore = Windows) -> None:
    """Law 2: any cutting of a log gives the same answers, to the bit."""
    assert answer(run(rules, log, cuts, make)) == answer(run(rules, log, make=make))


def crashes_are_invisible(
    rules: Rules, log: Log, cuts: Sequence[int], runs: Sequence[Run], make: MakeCore = Windows
) -> None:
    """Law 3: runs that end in a crash, each having fed some slices and committed the first of them, change nothing."""
    database = Database(Progress.begin(log.start))
    for run_ in [*runs, Run(ALL, ALL, cuts)]:
        _run_and_crash(rules, log, run_, database, make)
    undisturbed = Database(Progress.begin(log.start))
    undisturbed.commit(run(rules, log, make=make))
    assert replace(database, progress=undisturbed.progress) == undisturbed
    assert replace(database.progress, judged=()) == replace(undisturbed.progress, judged=())


def _run_and_crash(rules: Rules, log: Log, run_: Run, database: Database, make: MakeCore) -> None:
    """Resume from the database, feed so many slices beyond what refills, and commit the first of them."""
    position = database.progress.position
    parts = slices(log, run_.cuts, database.progress.resume)
    refilling = sum(part.end <= position for part in parts) if run_.fed else 0
    core = open_core(rules, database.progress, make)
    outcomes = feed(core, parts[: refilling + run_.fed])
    database.commit(outcomes[: refilling + min(run_.fed, run_.committed)])


def settings_may_change(runs: Sequence[tuple[Rules, Run]], log: Log, make: MakeCore = Windows) -> None:
    """Law 7: changed settings take effect from ``position`` on, and lose or overwrite nothing."""
    database = Database(Progress.begin(log.start))
    regimes: dict[int, Rules] = {}
    for rules, run_ in runs:
        regimes[database.progress.position] = rules
        _run_and_crash(rules, log, run_, database, make)
    position = database.progress.position
    oracle = Oracle(Rules())
    for record in log.records:
        if record.offset >= position:
            break
        starts = [start for start in regimes if start <= record.offset]
        if regimes[max(starts)] is not oracle.rules:
            oracle.change(regimes[max(starts)])
        oracle.read(record)
    compare_rows(oracle.table(), database.rows, slack=16)
    assert database.closed == [end for _, end in oracle.closings]
    assert [one for one in database.refused if one[1].startswith("timestamp")] == oracle.refused
    repeats = database.ledger.late_duplicates
    compare_ledger(
        oracle, log.start, position, replace(database.ledger, late=database.ledger.late + repeats, late_duplicates=0)
    )
    assert len(database.late) == database.ledger.late


def equals_one_group_by(rules: Rules, log: Log, make: MakeCore = Windows) -> None:
    """Law 4, of a log whose disorder is within the allowed lateness: nothing is late, and rows are one group by."""
    outcomes = run(rules, log, make=make)
    assert answer(outcomes).late == []
    until = outcomes[-1].progress.closed_until
    readings = [
        Reading(m.offset, m.append, m.event, m.device, metric, value)
        for m in log.records
        if isinstance(m, Message)
        for metric, value in m.readings
    ]
    expected = rollups(readings, rules.length)
    closed = {key: row for key, row in expected.items() if until is not None and key[0] < until}
    compare_rows(closed, rows_by_key(outcomes))


def no_honest_reading_is_late(rules: Rules, log: Log, make: MakeCore = Windows) -> None:
    """Law 6, of a log in which all devices but "wrong" tell the time right, or late by less than is allowed."""
    late = [row["device_id"] for outcome in run(rules, log, make=make) for row in outcome.late.iter_rows(named=True)]
    assert "honest" not in late


def placement_is_invisible(
    rules: Rules, logs: Mapping[str, Log], one_way: engine.Given, other_way: engine.Given, workers: int
) -> None:
    """Law 8: through the real engine, one worker and several answer alike, to the bit, and as the oracle does."""
    alone, shared = engine.run(rules, one_way, 1), engine.run(rules, other_way, workers)
    for partition, log in logs.items():
        assert answer(alone[partition]) == answer(shared[partition])
        oracle = Oracle(rules).read_all(log.records)
        compare_rows(oracle.rows(), rows_by_key(shared[partition]))
        whole = answer(shared[partition])
        assert whole.closed == [end for _, end in oracle.closings]
        assert [row[:2] for row in whole.late] == [(reading.offset, reading.append) for reading in oracle.late]
        compare_ledger(oracle, log.start, log.end, whole.counts)
