"""What travels through ``anomaly_flags``, one item a micro-batch.

    LogBatch (raw bytes)  ─decode─▶  RollupSlice (frames)  ─engine─▶  Judged (flags, episodes, state)

Everything is of one partition of ``aggregates.minute``, and consecutive. Times are ms since the Unix epoch, UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.aggregates import ROLLUPS
from schemas.log import Refused
from schemas.progress import Anchor, Counts, Progress

CLOSED: Final = "closed"
"""Header of the record that says a window is closed; its value is the window's end, ms, in decimal."""

TOLD: Final = pl.Schema({"offset": pl.Int64(), **ROLLUPS, "revision": pl.Int64()})
"""Rollups as ``aggregates.minute`` has them: a row a record, in the order of the log."""


@dataclass(frozen=True, slots=True)
class RollupSlice:
    """A ``LogBatch`` of ``aggregates.minute``, decoded: each record is a rollup, a closing, or a refusal.

    ``closed`` holds (offset, end of the window), ascending by offset.
    """

    partition: int
    start: int
    end: int
    rollups: pl.DataFrame  # TOLD
    closed: Sequence[tuple[int, int]] = ()
    refused: Sequence[Refused] = ()
    anchor: Anchor | None = None


class Flag(NamedTuple):
    """A row of ``anomaly_flags``: one subject, window and watch. None where there is nothing to say."""

    bucket: int
    device_id: str  # "" is the pipeline itself
    metric: str  # "" is the device as a whole
    detector: str
    severity: str
    score: float
    value: float | None
    expected: float | None
    lower: float | None
    upper: float | None
    episode_id: str | None  # None where late readings alone made a flag of a minute, in no episode
    params_version: str
    revision: int


Cause = Literal["calm", "forgotten", "settings"]


class Episode(NamedTuple):
    """A row of ``anomaly_episodes``, told when it opens and again when it closes.

    ``flag`` is the one that opened it; ``closed`` the end of the window in which it closed, ``cause`` why.
    """

    episode_id: str
    flag: Flag
    closed: int | None = None
    cause: Cause | None = None
    peak: float = 0.0  # the highest score, while it lasted

    @property
    def phase(self) -> Literal["open", "close"]:
        return "open" if self.closed is None else "close"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the engine of a partition knows, from which records at or above ``resume`` rebuild it.

    ``facts`` are plain values that JSON can hold, ``arrays`` what the detectors and episodes keep, by name.
    """

    resume: int
    facts: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What one slice led to. Applying it is one transaction.

    ``flags`` and ``episodes`` stand in the order in which they came to be. Of records below the claimed position
    nothing is told: they only rebuild the state. ``snapshot`` is there when one is to be kept.
    """

    partition: int
    flags: Sequence[Flag]
    episodes: Sequence[Episode]
    refused: Sequence[Refused]
    counts: Counts
    progress: Progress
    snapshot: Snapshot | None = None
