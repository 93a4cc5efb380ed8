"""A rule machine: records, feeding, commits, crashes and settings in any order, against the oracle and a database."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.log import Outcome
from schemas.progress import Progress
from tests.dataflows.windowing.budget import examples
from tests.dataflows.windowing.replay import Core, Database, compare_ledger, compare_rows, open_core, slice_of
from tests.oracles import Oracle, Record, Rules
from tests.strategies import BASES, Log, choices, records_of, rules


def has_read(self: "Partition") -> bool:
    """Whether this process has done anything yet: restarts one after the other would take up most of the steps."""
    return self.next > self.database.progress.resume


class Partition(RuleBasedStateMachine):
    """A log that grows, a core that reads it, a database it commits to, and an oracle that reads what was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []
        self.end = 0
        self.database = Database(Progress.begin(0))
        self.pending: list[Outcome] = []
        self.next = 0  # offset the core reads next

    @initialize(limits=rules(), base=st.sampled_from(BASES))
    def start(self, limits: Rules, base: int) -> None:
        self.now = base
        self.oracle = Oracle(limits)
        self._open(limits)

    def _open(self, limits: Rules) -> None:
        self.rules = limits
        self.core: Core = open_core(limits, self.database.progress)
        self.next = self.database.progress.resume
        self.pending = []

    @rule(drawn=choices(20))
    def append(self, drawn: bytes) -> None:
        """The log grows: readings, ticks, repetitions, poison, gaps."""
        grown = records_of(drawn[1:], self.rules, self.now, self.end - 1, self.records)
        self.records += grown
        if grown:
            self.now, self.end = grown[-1].append, grown[-1].offset + 1

    @precondition(lambda self: self.next < self.end)
    @rule(share=st.integers(1, 4))
    def feed(self, share: int) -> None:
        """The core reads some of what it has not read, or all."""
        high = self.next + -(-(self.end - self.next) // share)
        self.pending.append(self.core.feed(slice_of(Log(tuple(self.records), 0, self.end), self.next, high)))
        self.next = high

    @precondition(lambda self: self.pending)
    @rule()
    def commit(self) -> None:
        """What the core has answered since the last commit becomes one transaction."""
        self.database.commit(self.pending)
        self.pending = []

    @precondition(lambda self: self.next < self.end)
    @rule()
    def catch_up(self) -> None:
        """The core reads all that it has not read, and it is committed."""
        self.feed(share=1)
        self.commit()

    @precondition(has_read)
    @rule()
    def crash(self) -> None:
        """The process dies and another resumes with the same settings."""
        self._open(self.rules)

    @precondition(has_read)
    @rule(data=st.data())
    def change_settings(self, data: st.DataObject) -> None:
        """The process is stopped and started with other settings, of the same window length."""
        self._open(data.draw(rules(length=self.rules.length)))

    @invariant()
    def the_database_is_the_oracles(self) -> None:
        """Ledger, closings, resume and rows are those of a plain reading of what is committed."""
        if not hasattr(self, "oracle"):
            return
        done = sum(self.oracle.kinds.values())
        progress = self.database.progress
        for record in self.records[done:]:
            if record.offset >= progress.position:
                break
            if self.oracle.rules is not self.rules:  # settings that accounted for nothing never were
                self.oracle.change(self.rules)
            self.oracle.read(record)
        if not self.pending:
            self._compare()

    def _compare(self) -> None:
        progress, ledger = self.database.progress, self.database.ledger
        assert self.database.closed == [end for _, end in self.oracle.closings]
        assert progress.resume == self.oracle.resume(progress.position)
        repeats = {"late": ledger.late + ledger.late_duplicates, "late_duplicates": 0}
        compare_ledger(self.oracle, 0, progress.position, replace(ledger, **repeats))
        compare_rows(self.oracle.table(), self.database.rows, slack=16)


TestPartition = Partition.TestCase
TestPartition.settings = settings(examples(60), stateful_step_count=30)
