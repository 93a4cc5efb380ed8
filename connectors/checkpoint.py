"""The checkpoint protocol: the database is the checkpoint, one sink seals, one source resumes.

A dataflow that checkpoints is, on one worker and for one partition::

    ResumingSource ─(Claim, LogBatch…)─▶ its own steps ─(partition, Sealed)…─▶ SealingSink

The source claims the partition in the database (its generation grows: whoever held it is fenced off), and
sends the ``Claim`` as its first item; everything downstream is built from that, never from a local file. The
sink commits rows, ledger and progress in one transaction a partition and epoch, guarded by generation and position.

This file knows neither Kafka nor PostgreSQL: both are behind the protocols below.
"""

from collections.abc import Sequence
from typing import Protocol

from schemas.log import LogBatch
from schemas.progress import Anchor, Claim


class LogReader(Protocol):
    """One partition of a log, read in order from one offset on."""

    def read(self) -> LogBatch | None:
        """What has arrived since the last call, without waiting; None where nothing has.

        Raises ``OperatorError`` where the log cannot go on: offsets deleted by retention, topic gone, access denied.
        A server that is away is not an error: it returns None and the client reconnects.
        """
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

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset the log still has, and the next one it will give."""
        ...

    def anchor(self, partition: int, offset: int) -> Anchor | None:
        """The record at ``offset``, for comparison; None where the log holds none there."""
        ...

    def reader(self, partition: int, offset: int) -> LogReader: ...


class ProgressStore(Protocol):
    """Where progress is kept and claimed."""

    def claim(self, flow: str, topic: str, partition: int, topic_id: str, begin: int) -> Claim:
        """Claim the partition for this process in one statement; progress starts at offset ``begin`` if there is none."""
        ...
