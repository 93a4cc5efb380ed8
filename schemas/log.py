"""What travels from the log to the window core and on to the sink, one item a micro-batch.

    LogBatch (raw bytes)  ─decode─▶  LogSlice (frames)  ─core─▶  Outcome (rows, counts, progress)

Everything is of one partition, and consecutive: the ``start`` of a batch is the ``end`` of the one before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from schemas.progress import Anchor, Counts, Progress

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Records of one partition as the source read them: all that the log holds in [start, end).

    ``offsets``, ``append_times`` (ms) and ``values`` are parallel, ascending by offset. Offsets of [start, end) that
    are missing held no record (transaction markers, compaction): gaps. ``headers`` holds, by index into the
    lists, the headers of records that can be ticks (null key, small value) and of no other: reading them costs.
    A tombstone's value is ``b""``. Kafka's reader hands out values in one piece (``schemas.packed``).
    """

    topic: str
    partition: int
    start: int
    end: int
    offsets: Sequence[int]
    append_times: Sequence[int]
    values: Sequence[bytes]
    headers: Mapping[int, Headers] = field(default_factory=dict)
    anchor: Anchor | None = None  # of the last record in the batch; None where it holds no record


@dataclass(frozen=True, slots=True)
class Refused:
    """A payload, or a part of it, that cannot be used: one of the closed set of reasons, and where it was.

    ``whole`` is False where good metrics of the same message went on; the payload is dead-lettered all the same.
    """

    offset: int
    append_time: int
    reason: str
    detail: str
    payload: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True)
class LogSlice:
    """A ``LogBatch``, decoded: each record became a message, a tick or a refusal.

    A message of which some metrics were refused stands in both ``messages`` and ``refused`` (``whole=False``).
    """

    partition: int
    start: int
    end: int
    messages: pl.DataFrame  # schemas.frames.MESSAGES
    ticks: pl.DataFrame  # schemas.frames.TICKS
    refused: Sequence[Refused] = ()
    anchor: Anchor | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one slice did to the windows of its partition. Applying it is one transaction.

    ``rollups`` has the columns of ``schemas.aggregates.ROLLUPS`` and holds whole closed windows, ascending by
    bucket, then device and metric; a (series, bucket) never appears twice in the life of a partition.
    ``closed`` are the ends (ms, exclusive) of the windows closed by this slice, ascending, empty ones included
    (of a leap over more than a year of minutes, only the first and the last of those).
    ``late`` (``schemas.frames.LATE``) holds readings whose window had closed before their record; whether one repeats
    an earlier one is for the store to say.
    ``refused`` adds, to those of the slice, messages that the core refused by their time; those
    below ``position`` (already accounted for before a resume) are left out.
    ``counts`` are the increments of the ledger by this slice, except that ``late`` and ``late_duplicates`` are the
    store's to tell apart: ``counts.late`` holds both. ``counts.open`` is measured from the buffer, never derived
    from the equation, and leaves out rows refilled from below ``position``.
    ``progress`` is the state after the slice.
    """

    partition: int
    rollups: pl.DataFrame
    late: pl.DataFrame
    closed: Sequence[int]
    refused: Sequence[Refused]
    counts: Counts
    progress: Progress


@dataclass(frozen=True, slots=True)
class Landing:
    """The readings of one slice as they came (``schemas.frames.READINGS``), repetitions included.

    ``counts.counted`` is their number: here every reading counts. ``progress.resume`` is ``progress.position``.
    """

    partition: int
    readings: pl.DataFrame
    counts: Counts
    progress: Progress
