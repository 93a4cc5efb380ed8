"""What a detector is: a pure, vectorised step over all series of a partition.

Rule: a detector knows of a series only what its rollups said, in their order; it never sees a name, a clock or the
length of what is to come. A series is a position in the state: the caller says which series sits where.

Guarantee, held for every detector of the registry by tests/dataflows/anomalies/test_laws.py: scores are a function of
the series' own rollups up to the one scored, to the bit, whatever other series share the step and however rollups are
spread over steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

State = Mapping[str, Array]
"""Named arrays whose last axis is the series; all zeros is a series never seen. A snapshot is these arrays."""


@dataclass(frozen=True, slots=True)
class Field:
    """An array of the state: its axes before that of the series, and its type."""

    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def bytes_per_series(self) -> int:
        """What one series holds in this array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Rollups:
    """Rollups of one step, columnar: at most one a series, each later than all of its series before.

    ``closed_until`` (ms) is the end of the window that closed: a series without a rollup here said nothing before it.
    """

    series: Ints  # positions in the state, no two equal
    bucket: Ints  # starts of the windows, ms since the epoch
    mean: Floats
    m2: Floats
    min: Floats
    max: Floats
    count: Ints
    closed_until: int

    @classmethod
    def of_frame(cls, rollups: pl.DataFrame, series: Ints, closed_until: int) -> "Rollups":
        """The rollups of a frame with the columns of ``schemas.aggregates.ROLLUPS``; ``series`` places its rows."""
        return cls(
            series=series,
            bucket=rollups["bucket"].to_numpy(),
            mean=rollups["mean"].to_numpy(),
            m2=rollups["m2"].to_numpy(),
            min=rollups["min"].to_numpy(),
            max=rollups["max"].to_numpy(),
            count=rollups["count"].to_numpy(),
            closed_until=closed_until,
        )

    @classmethod
    def of_values(cls, series: Ints, bucket: Ints, value: Floats, length_ms: int = 60_000) -> "Rollups":
        """One reading a window: its rollup is the value itself."""
        one, closed = np.ones(len(value), np.int64), int(np.max(bucket)) + length_ms if len(bucket) else 0
        return cls(series, bucket, value, np.zeros(len(value)), value, value, one, closed)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a detector says of series, one entry each; mostly one for every rollup, in the rollups' order.

    ``score`` lies in [0, 1] and is the only column that decides; ``expected``, ``lower`` and ``upper`` explain it, in
    the metric's own unit, and were known before the rollup; they are NaN where nothing is expected yet.
    """

    series: Ints
    score: Floats
    expected: Floats
    lower: Floats
    upper: Floats


class Detector(Protocol):
    """A model of all series at once. Implementations hold parameters only, so that one serves every partition."""

    @property
    def name(self) -> str:
        """What flags call it; it never changes."""

    @property
    def params_version(self) -> str:
        """Changes whenever equal rollups could score differently."""

    @property
    def flag_at(self) -> float:
        """The score from which a rollup is flagged by default."""

    @property
    def unit_free(self) -> bool:
        """Whether it judges by the series' own past alone, so that unit and zero do not matter: more laws hold then."""

    @property
    def fields(self) -> Mapping[str, Field]:
        """The arrays of the state."""

    def step(self, state: State, rollups: Rollups) -> tuple[State, Scores]:
        """Score ``rollups`` and learn from them. Pure: neither argument is changed, and arrays may be shared."""


def blank(detector: Detector, series: int) -> State:
    """The state of ``series`` series that were never seen."""
    return {name: np.zeros((*field.shape, series), field.dtype) for name, field in detector.fields.items()}


def grown(state: State, series: int) -> State:
    """The same state with room for ``series`` series in all; those it has keep their positions."""
    return {name: _widened(array, series) for name, array in state.items()}


def bytes_per_series(detector: Detector) -> int:
    """The state of one series, whatever it has seen."""
    return sum(field.bytes_per_series for field in detector.fields.values())


def _widened(array: Array, series: int) -> Array:
    wider = np.zeros((*array.shape[:-1], series), array.dtype)
    wider[..., : array.shape[-1]] = array
    return wider
