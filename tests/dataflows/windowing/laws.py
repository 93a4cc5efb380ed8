"""The laws of the window core that hold of any log, as functions of a case: for property tests and for mutants."""

from collections.abc import Sequence
from dataclasses import replace

from dataflows.windowing import Windows
from schemas.progress import Counts, Progress
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
from tests.oracles import Oracle, Rules
from tests.strategies import Log


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
    rules: Rules, log: Log, cuts: Sequence[int], runs: Sequence[tuple[int, int]], make: MakeCore = Windows
) -> None:
    """Law 3: runs that end in a crash, each having fed some slices and committed the first of them, change nothing."""
    database = Database(Progress.begin(log.start))
    for fed, committed in [*runs, (len(cuts) + 2, len(cuts) + 2)]:
        _run_and_crash(rules, log, cuts, database, fed, committed, make)
    undisturbed = Database(Progress.begin(log.start))
    undisturbed.commit(run(rules, log, make=make))
    assert replace(database, progress=undisturbed.progress) == undisturbed
    assert replace(database.progress, judged=()) == replace(undisturbed.progress, judged=())


def _run_and_crash(
    rules: Rules, log: Log, cuts: Sequence[int], database: Database, fed: int, committed: int, make: MakeCore
) -> None:
    """Resume from the database, feed so many slices beyond what refills, and commit the first of them."""
    position = database.progress.position
    parts = slices(log, cuts, database.progress.resume)
    refilling = sum(part.end <= position for part in parts) if fed else 0
    core = open_core(rules, database.progress, make)
    outcomes = feed(core, parts[: refilling + fed])
    database.commit(outcomes[: refilling + min(fed, committed)])


def settings_may_change(
    cases: Sequence[tuple[Rules, int, int]], log: Log, cuts: Sequence[int], make: MakeCore = Windows
) -> None:
    """Law 7: changed settings take effect from ``position`` on, and lose or overwrite nothing."""
    database = Database(Progress.begin(log.start))
    regimes: dict[int, Rules] = {}
    for rules, fed, committed in cases:
        regimes[database.progress.position] = rules
        _run_and_crash(rules, log, cuts, database, fed, committed, make)
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
