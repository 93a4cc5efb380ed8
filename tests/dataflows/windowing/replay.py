"""Runs the core over a log: cut anywhere, crashed anywhere, into a model of the database.

The database is modelled as the design says it works: rows are inserted once, late readings by identity, each is
folded into its row in offset order, and the ledger and the progress move in the same transaction.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import polars as pl

from dataflows.windowing import Windows
from schemas import aggregates
from schemas.frames import MESSAGES, TICKS
from schemas.log import LogSlice, Outcome, Refused
from schemas.progress import Counts, Progress
from schemas.settings import WindowSettings
from tests.oracles import Bad, Message, Oracle, Rules, Tick
from tests.strategies import Log

Key = tuple[int, str, str]
NO_MESSAGES, NO_TICKS = MESSAGES.to_frame(), TICKS.to_frame()


class Core(Protocol):
    """What a core, or a mutant of one, can do."""

    closed_until: int | None

    def feed(self, part: LogSlice) -> Outcome: ...


MakeCore = Callable[[WindowSettings, Progress, Sequence[str]], Core]


def settings_of(rules: Rules) -> WindowSettings:
    return WindowSettings(
        length_secs=rules.length // 1000,
        allowed_lateness_secs=rules.lateness / 1000,
        clock_skew_max_secs=rules.skew / 1000,
        quiet_secs=rules.quiet / 1000,
        patience_secs=rules.patience / 1000,
        event_age_max_secs=rules.age / 1000,
    )


def open_core(rules: Rules, progress: Progress, make: MakeCore = Windows) -> Core:
    return make(settings_of(rules), progress, rules.workers)


def slice_of(log: Log, low: int, high: int) -> LogSlice:
    """[low, high) of a log, decoded."""
    records = [record for record in log.records if low <= record.offset < high]
    messages = [r for r in records if isinstance(r, Message)]
    ticks = [r for r in records if isinstance(r, Tick)]
    return LogSlice(
        partition=0,
        start=low,
        end=high,
        messages=pl.DataFrame(
            {
                "offset": [m.offset for m in messages],
                "append_time": [m.append for m in messages],
                "event_time": [m.event for m in messages],
                "device_id": [m.device for m in messages],
                "metric": [[metric for metric, _ in m.readings] for m in messages],
                "value": [[value for _, value in m.readings] for m in messages],
            },
            schema=MESSAGES,
        )
        if messages
        else NO_MESSAGES,
        ticks=pl.DataFrame([(t.offset, t.append, t.worker, t.ts) for t in ticks], schema=TICKS, orient="row")
        if ticks
        else NO_TICKS,
        refused=[Refused(r.offset, r.append, "not_json", "", b"?") for r in records if isinstance(r, Bad)],
    )


def slices(log: Log, cuts: Iterable[int], low: int | None = None) -> list[LogSlice]:
    """The log from ``low`` on, cut at the cuts above it."""
    low = log.start if low is None else low
    edges = [low, *(cut for cut in cuts if low <= cut < log.end), log.end]
    return [slice_of(log, a, b) for a, b in pairwise(edges)]


def feed(core: Core, parts: Iterable[LogSlice]) -> list[Outcome]:
    return [core.feed(part) for part in parts]


def run(rules: Rules, log: Log, cuts: Iterable[int] = (), make: MakeCore = Windows) -> list[Outcome]:
    """Feed a whole log, from nothing, without a crash."""
    return feed(open_core(rules, Progress.begin(log.start), make), slices(log, cuts))


def bits(value: Any) -> Any:
    """A value that is equal only to the same bits."""
    return struct.pack(">d", value) if isinstance(value, float) else value


def exact(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """The rows of a frame, in order, comparable to the bit."""
    return [tuple(bits(value) for value in row) for row in frame.iter_rows()]


@dataclass
class Answer:
    """All that a run answered, without what depends on the cutting."""

    rollups: list[tuple[Any, ...]] = field(default_factory=list)
    late: list[tuple[Any, ...]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    refused: list[tuple[int, str, bool]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    progress: Progress | None = None


def answer(outcomes: Iterable[Outcome]) -> Answer:
    whole = Answer()
    for outcome in outcomes:
        whole.rollups += exact(outcome.rollups)
        whole.late += exact(outcome.late)
        whole.closed += outcome.closed
        whole.refused += [(one.offset, one.reason, one.whole) for one in outcome.refused]
        whole.counts += outcome.counts
        whole.progress = outcome.progress
    return whole


@dataclass
class Database:
    """Tables and progress of one partition."""

    progress: Progress
    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)
    revisions: dict[Key, int] = field(default_factory=dict)
    late: set[tuple[Any, ...]] = field(default_factory=set)
    closed: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    ledger: Counts = field(default_factory=Counts)

    def commit(self, outcomes: Sequence[Outcome]) -> None:
        """One transaction, as the sealing sink makes it."""
        for outcome in outcomes:
            for row in outcome.rollups.iter_rows(named=True):
                key = (row.pop("bucket"), row.pop("device_id"), row.pop("metric"))
                assert key not in self.rows, f"{key} was emitted twice"
                self.rows[key] = row
            repeats = sum(not self._revise(row) for row in outcome.late.iter_rows(named=True))
            counts = outcome.counts
            self.ledger += replace(counts, late=counts.late - repeats, late_duplicates=repeats)
            self.closed += outcome.closed
            self.refused += [(one.offset, one.reason) for one in outcome.refused]
            self.progress = outcome.progress
        assert self.ledger.unexplained == 0, self.ledger
        assert self.ledger.offsets == self.progress.position - self.progress.start

    def _revise(self, late: Mapping[str, Any]) -> bool:
        identity = (late["device_id"], late["metric"], late["event_time"], bits(late["value"]))
        if identity in self.late:
            return False
        self.late.add(identity)
        key = (late["bucket"], late["device_id"], late["metric"])
        one = aggregates.partial(late["event_time"], late["value"])
        self.rows[key] = aggregates.combine(self.rows[key], one) if key in self.rows else one
        self.revisions[key] = self.revisions.get(key, 0) + 1
        return True


def compare_ledger(oracle: Oracle, start: int, position: int, counts: Counts) -> None:
    """The ledger says of the log up to ``position`` what the oracle counts there."""
    expected = oracle.ledger(start, position)
    assert {name: getattr(counts, name) for name in expected} == expected
    assert counts.unexplained == 0
    assert counts.offsets == position - start


def compare_rows(expected: Mapping[Key, Any], found: Mapping[Key, Mapping[str, Any]], slack: int = 1) -> None:
    """The same rows, each right in every column."""
    assert set(found) == set(expected)
    wrong = {key: expected[key].differences(row, slack) for key, row in found.items()}
    assert not any(wrong.values()), {key: columns for key, columns in wrong.items() if columns}


def rows_by_key(outcomes: Iterable[Outcome]) -> dict[Key, dict[str, Any]]:
    rows = [row for outcome in outcomes for row in outcome.rollups.iter_rows(named=True)]
    return {(row["bucket"], row["device_id"], row["metric"]): row for row in rows}
