"""The sealing sink: the one sink step of a dataflow that checkpoints (``connectors.checkpoint``).

Guarantee: what an epoch brought is committed in one transaction a partition, guarded by generation and position, after
everything published with it is durable; or the process stops, having written nothing. Killed at any moment, the next
start finds all of an item's effects in the database, or none.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.checkpoint import Sealed, SealingStore, Writer
from connectors.health import HEALTH
from connectors.metering import SealMeter
from connectors.stopping import speaking
from schemas.progress import Claim, Counts, Progress

S = TypeVar("S", bound=Sealed)
X = TypeVar("X")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long rows may wait for others: until they are ``readings``, or the last commit is ``wait_secs`` ago.

    So where it is calm a reading is written at once, and where it is busy there is a commit each ``wait_secs``, or
    sooner by number. Nothing waits for a source that is at rest. A backlog brings more than ``readings`` in one epoch,
    and they go together.
    """

    readings: int = 0
    wait_secs: float = 0.0


AT_ONCE: Final = Pace()


class SealingSink(FixedPartitionedSink[Claim | S, None], Generic[S, X]):
    """Items are ``(partition name, item)``; the first of a partition is its ``Claim``, from which ``writer`` is called.

    ``parts`` are the source's ``list_parts``: with the same names a partition's source, steps and sink are on one
    worker. A commit is made at the end of an epoch that brought rows (``pace`` can let them wait for more), and
    otherwise each ``progress_every_secs`` while items come: an older progress is always right, and costs a little
    reading again after a crash. The last commit is made at the end of the input. ``told`` hears of each commit, after
    it, with the items whose rows were in it. ``check``, the source's, is asked before each commit whether what had come
    until then (``time.monotonic``) is still of the log that was claimed.
    """

    def __init__(
        self,
        store: SealingStore[X],
        parts: Callable[[], list[str]],
        writer: Callable[[Claim], Writer[S, X]],
        progress_every_secs: float = 10.0,
        pace: Pace = AT_ONCE,
        told: Callable[[Claim, Sequence[S]], None] = lambda _claim, _items: None,
        check: Callable[[Claim, float], None] = lambda _claim, _since: None,
    ) -> None:
        self._store = store
        self._parts = parts
        self._writer = writer
        self._every_secs = progress_every_secs
        self._pace = pace
        self._told = told
        self._check = check
        self._open: Counter[int] = Counter()  # worker's thread → parts not closed yet

    @speaking
    def list_parts(self) -> list[str]:
        return self._parts()

    def part_fn(self, item_key: str) -> int:
        return sorted(self._parts()).index(item_key)  # the engine sorts names as strings: "10" before "2"

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "SealingPart[S, X]":  # noqa: ARG002
        self._open[threading.get_ident()] += 1
        return SealingPart(
            self._store, self._writer, self._every_secs, self._pace, self._told, self._check, self._closed
        )

    def _closed(self) -> None:
        self._open[threading.get_ident()] -= 1
        if not self._open[threading.get_ident()]:
            self._store.close()


class SealingPart(StatefulSinkPartition[Claim | S, None], Generic[S, X]):
    """One partition: waits for its claim, gathers an epoch's items, seals them."""

    def __init__(
        self,
        store: SealingStore[X],
        writer: Callable[[Claim], Writer[S, X]],
        every_secs: float,
        pace: Pace,
        told: Callable[[Claim, Sequence[S]], None],
        check: Callable[[Claim, float], None],
        closed: Callable[[], None],
    ) -> None:
        self._store: Final = store
        self._make_writer: Final = writer
        self._every_secs: Final = every_secs
        self._pace: Final = pace
        self._told: Final = told
        self._check: Final = check
        self._closed: Final = closed
        self._claim: Claim | None = None
        self._pending: _Pending[S] | None = None

    @speaking
    def write_batch(self, values: list[Claim | S]) -> None:
        self._heard_at = time.monotonic()
        for value in values:
            if isinstance(value, Claim):
                self._begin(value)
            else:
                assert self._claim is not None, "the source's first item, the Claim, must reach the sink first"
                self._pending = self._pending or _Pending()
                self._pending.add(value, rows=self._writer.has_rows(value))

    @speaking
    def snapshot(self) -> None:
        """The end of an epoch that brought items."""
        if self._pending is not None and (self._ready(self._pending) or time.monotonic() >= self._due):
            self._seal(self._pending)

    @speaking
    def close(self) -> None:
        """The end of the input: what could wait until now is committed."""
        if self._pending is not None:
            self._seal(self._pending)
        self._closed()

    def _ready(self, pending: "_Pending[S]") -> bool:
        """Whether there are rows that should not wait for others."""
        since_commit_secs = time.monotonic() - self._sealed_at
        enough = pending.counts.readings >= self._pace.readings or since_commit_secs >= self._pace.wait_secs
        return bool(pending.items) and (enough or pending.at_rest)

    def _begin(self, claim: Claim) -> None:
        assert self._claim is None, "a partition is claimed once in the life of a process"
        self._claim, self._sealed = claim, claim.progress
        self._writer = self._make_writer(claim)
        self._meter = SealMeter(claim)
        self._due, self._sealed_at = time.monotonic() + self._every_secs, -math.inf

    def _seal(self, pending: "_Pending[S]") -> None:
        """Commit what is pending. Where no offset is new (a resume refills open windows) there is nothing to commit."""
        claim, writer, progress = self._claim, self._writer, pending.progress
        assert claim is not None
        if progress.position > self._sealed.position:
            began, counts = time.monotonic(), pending.counts
            self._check(claim, self._heard_at)

            def work(transaction: X) -> Counts:
                nonlocal counts
                counts = _write(writer, transaction, pending)  # of the try that will have been committed
                return counts

            self._store.seal(claim, self._sealed, progress, work)
            self._sealed, self._sealed_at = progress, time.monotonic()
            self._due = self._sealed_at + self._every_secs
            self._tell(claim, pending.items, counts, self._sealed_at - began)
        else:
            assert not pending.items, "rows without a new offset would be written twice by a crash"
        self._pending = None

    def _tell(self, claim: Claim, items: Sequence[S], counts: Counts, secs: float) -> None:
        """What ``ledger`` has more now, for those who watch."""
        HEALTH.committed(claim.topic, claim.partition, self._sealed.position)
        self._meter.committed(counts, secs)
        self._told(claim, items)


def _write(writer: Writer[S, X], transaction: X, pending: "_Pending[S]") -> Counts:
    """Rows first, then durable everywhere else; the commit, in the database, comes last."""
    counts = writer.write(transaction, pending.items, pending.counts)
    writer.flush()
    return counts


class _Pending(Generic[S]):
    """What came since the last commit: items with rows as they are, of the others only progress and counts.

    ``at_rest``: the newest item brought no offset, as a source's does when nothing more comes.
    """

    def __init__(self) -> None:
        self.items: list[S] = []
        self.counts = Counts()
        self.at_rest = False
        self._progress: Progress | None = None

    @property
    def progress(self) -> Progress:
        assert self._progress is not None, "made when the first item is added"
        return self._progress

    def add(self, item: S, rows: bool) -> None:
        if rows:
            self.items.append(item)
        self.counts += item.counts
        self.at_rest = not item.counts.offsets
        self._progress = item.progress
