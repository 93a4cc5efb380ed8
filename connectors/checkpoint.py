"""The checkpoint protocol: the database is the checkpoint, one source resumes, one sink seals.

A dataflow that checkpoints is, on one worker and for one partition::

    ResumingSource ─(Claim, LogBatch…)─▶ its own steps ─(partition, Claim | Sealed)…─▶ SealingSink
    connectors.resuming                                                                connectors.sealing

The source claims the partition in the database (its generation grows: whoever held it is fenced off), and
sends the ``Claim`` as its first item; everything downstream is built from that, never from a local file. The
sink commits rows, ledger and progress in one transaction a partition and epoch, guarded by generation and position.
A dataflow has one sealing sink and no other: two sink steps have no order, and one could outlive a crash alone.

This file knows neither Kafka nor PostgreSQL: both are behind the protocols below. ``README.md`` is the contract.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from schemas.log import LogBatch
from schemas.progress import Anchor, Claim, Counts, Progress
from schemas.record import Record


class LogReader(Protocol):
    """One partition of a log, read in order from one offset on."""

    def read(self) -> LogBatch | None:
        """What has arrived since the last call, without waiting; None where nothing has.

        Raises ``OperatorError`` where the log cannot go on: offsets deleted by retention, topic gone, access denied.
        A server that is away is not an error: it returns None and the client reconnects.
        """
        ...

    def end(self) -> int | None:
        """The next offset the log will give, as far as the reader has heard, without asking; None before it has."""
        ...

    def close(self) -> None: ...


class Log(Protocol):
    """A partitioned log that can be read again from any offset it still has."""

    @property
    def topic(self) -> str: ...

    def partitions(self) -> Sequence[int]:
        """The partitions of the topic. Raises ``OperatorError`` where there is no such topic."""
        ...

    def identity(self) -> str:
        """The topic's id, which changes when it is deleted and made again."""
        ...

    def is_still(self, topic_id: str, since: float) -> bool:
        """Whether all that was read until ``since`` (``time.monotonic``) is of the log of that identity.

        Asked before each commit. True also where nobody answers.
        """
        ...

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset the log still has, and the next one it will give."""
        ...

    def anchor(self, partition: int, offset: int) -> Anchor | None:
        """The record at ``offset``, for comparison; None where the log holds none there."""
        ...

    def reader(self, partition: int, offset: int) -> LogReader: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What is on record of a partition before it is claimed: its progress, and of which log that is.

    ``partitions`` is the number of partitions the topic had.
    """

    progress: Progress
    topic_id: str
    partitions: int


class ProgressStore(Protocol):
    """Where the progress of one flow is kept and claimed."""

    @property
    def flow(self) -> str: ...

    def standing(self, topic: str) -> Mapping[int, Standing]:
        """What is on record, by partition; changes nothing. Raises ``OperatorError`` where the flow may not go on "
        "from it."""
        ...

    def claim(self, topic: str, topic_id: str, partitions: int, begins: Mapping[int, int]) -> Mapping[int, Claim]:
        """Claim the partitions of ``begins``, all or none, in one statement that takes them in order.

        A partition without progress starts at its offset in ``begins``. ``partitions`` is the topic's number of them.
        """
        ...


class Sealed(Protocol):
    """What the sink accounts for: the state after an item, and the ledger's increments by it."""

    @property
    def progress(self) -> Progress: ...

    @property
    def counts(self) -> Counts: ...


S_contra = TypeVar("S_contra", bound=Sealed, contravariant=True)
X_co = TypeVar("X_co", covariant=True)
X_contra = TypeVar("X_contra", contravariant=True)


class Writer(Protocol[S_contra, X_contra]):
    """What one dataflow writes for one partition, built from its ``Claim``. ``X`` is the store's open transaction."""

    def has_rows(self, item: S_contra) -> bool:
        """Whether the item brings anything to write, beside progress and counts that can wait."""
        ...

    def write(self, transaction: X_contra, items: Sequence[S_contra], counts: Counts) -> Counts:
        """Write the items' rows in the transaction, and hand their records to the publisher.

        Answers with ``counts`` as the store knows them better (late or a repetition). Called again with
        the same items, in another transaction, where the first was lost with its connection.
        """
        ...

    def flush(self) -> None:
        """Return when all that was published is durable. Called before the commit."""
        ...


class SealingStore(Protocol[X_co]):
    """Where rows, ledger and progress are committed together."""

    def seal(self, claim: Claim, before: Progress, after: Progress, work: Callable[[X_co], Counts]) -> None:
        """Move the progress of ``claim`` from ``before`` to ``after``, with what ``work`` writes, in one transaction.

        ``work`` is called after the fence was passed, answers with the ledger's increments, and is called again where
        an outage undid it. Returns when all is committed, once. Raises ``FencedOff``, having written nothing, where
        the partition was claimed by another since; ``OperatorError`` where an outage outlasts its limit.
        """
        ...

    def close(self) -> None:
        """Let go of what the calling worker holds; called when its last partition is closed."""
        ...


class Publisher(Protocol):
    """Where a writer's records go: ``connectors.kafka_sink.Publisher``."""

    def send_all(self, records: Sequence[Record]) -> None: ...

    def flush(self) -> None:
        """Return when every record sent is durable. Raises ``OperatorError`` if one cannot become so."""
        ...
