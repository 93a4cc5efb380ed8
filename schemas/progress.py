"""Progress of one (flow, topic, partition): what is known once and kept in the database, not in a directory.

DESIGN.md, section 3. The source claims it, the core moves it, the sink commits it with the rows it accounts for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Anchor:
    """The last accounted record: offset, timestamp (ms), CRC-32 of its value. Tells one log from another."""

    offset: int
    timestamp: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Judged:
    """The limits by which readings from ``offset`` on were judged, until the next entry."""

    offset: int
    clock_skew_max_ms: int
    event_age_max_ms: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition is accounted for, and what a resume needs.

    - ``position``: the next offset to account for.
    - ``resume``: the lowest offset that still contributes to an open window; at most ``position``.
    - ``closed_until``: end (ms, exclusive) of the newest closed window; None before anything closed. Never goes back.
    - ``ticks``: each ingest worker's highest tick, as min(ts, append time), ms.
    - ``judged``: ascending by offset; the first entry is at or below ``resume``.
    - ``start``: the offset accounting began with.
    - ``anchor``: identity of the last accounted record; None before the first.
    """

    position: int
    resume: int
    start: int
    closed_until: int | None = None
    ticks: Mapping[str, int] = field(default_factory=dict)
    judged: Sequence[Judged] = ()
    anchor: Anchor | None = None

    @classmethod
    def begin(cls, offset: int) -> "Progress":
        """Progress of a partition of which nothing is accounted for yet."""
        return cls(position=offset, resume=offset, start=offset)


@dataclass(frozen=True, slots=True)
class Counts:
    """The ledger of a partition, or an increment of it.

    Exact at every commit::

        position − start = messages + ticks + refused + gaps
        readings         = counted + late + duplicates + late_duplicates + open
    """

    messages: int = 0
    ticks: int = 0
    refused: int = 0
    gaps: int = 0
    readings: int = 0
    counted: int = 0
    late: int = 0
    duplicates: int = 0
    late_duplicates: int = 0
    open: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def offsets(self) -> int:
        """Offsets accounted for."""
        return self.messages + self.ticks + self.refused + self.gaps

    @property
    def unexplained(self) -> int:
        """Readings the second equation does not explain; zero, or the ledger does not balance."""
        return self.readings - (self.counted + self.late + self.duplicates + self.late_duplicates + self.open)


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition claimed for this process: the source's first item, from which core and sink are built.

    ``generation`` grew by one with the claim; whoever holds an older one is fenced off at its next commit.
    ``topic_id`` is the identity of the log that was claimed.
    """

    flow: str
    topic: str
    partition: int
    generation: int
    topic_id: str
    progress: Progress
