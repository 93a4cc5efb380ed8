"""The aggregates of a rollup, as data: one list, which schema, SQL, store and laws iterate.

Adding one touches ``AGGREGATES``, a field of ``Rollup`` in the proto file and a migration, nothing else; a
start-up check compares the three.

Each aggregate has two ways to the same columns. ``reduce`` makes them for all groups of a closed window at once,
from readings in canonical order. ``one`` and ``combine`` make them for a row that is revised: a partial of one
reading, folded into what the row holds. Partials combine in any order and grouping (Chan, Golub & LeVeque, "Updating
Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979): exactly for count, min, max, first
and last, to rounding for mean and m2.

Guarantee: the result of ``reduce`` depends on a group's readings and their order alone, to the bit; no
result is NaN, and a mean is finite and lies within [min, max], whatever finite values it is made of.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Partial = Mapping[str, Any]  # column → value: int for Int64, float for Float64


@dataclass(frozen=True)
class Groups:
    """Readings in canonical order (series, event time, offset), without duplicates, as runs of one series.

    ``starts`` are the indices of each run's first reading, ascending, the first being 0; no run is empty.
    """

    values: Floats  # finite
    times: Ints  # event time, ms
    starts: Ints

    @cached_property
    def counts(self) -> Ints:
        """Readings in each run."""
        return np.diff(self.starts, append=len(self.values))

    @cached_property
    def lasts(self) -> Ints:
        """Index of each run's last reading."""
        return self.starts + self.counts - 1

    @cached_property
    def lowest(self) -> Floats:
        """The least value of each run."""
        return self._extreme(np.minimum)

    @cached_property
    def highest(self) -> Floats:
        """The greatest value of each run."""
        return self._extreme(np.maximum)

    @cached_property
    def _ordinals(self) -> Ints:
        return _ordered(self.values)

    def _extreme(self, pick: np.ufunc) -> Floats:
        best: Ints = pick.reduceat(self._ordinals, self.starts)
        return _ordered(best.view(np.float64)).view(np.float64)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a rollup: its type in frames and in SQL. Int64 columns of type timestamptz are ms since the epoch."""

    name: str
    dtype: pl.DataType
    sql: str


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate. The three functions answer with the aggregate's columns, in the order of ``columns``.

    ``combine(a, b)`` reads whole partials, all aggregates' columns in them; ``a`` is earlier in the log than ``b``.
    """

    name: str
    columns: Sequence[Column]
    reduce: Callable[[Groups], Sequence[npt.NDArray[Any]]]
    one: Callable[[int, float], Sequence[int | float]]
    combine: Callable[[Partial, Partial], Sequence[int | float]]


def _ordered(values: Floats) -> Ints:
    """Integers in the order of the doubles, −0.0 below 0.0, so that a minimum is one value and not one of two.

    Its own inverse on the bits (the total order of IEEE 754-2008, 5.10).
    """
    bits = values.view(np.int64)
    return bits ^ ((bits >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))


def _total_order(value: float) -> tuple[float, float]:
    return value, math.copysign(1.0, value)


def _reduce_moments(groups: Groups) -> tuple[Floats, Floats]:
    """Mean and sum of squared deviations in two passes, each corrected by the sum of the deviations.

    Chan, Golub & LeVeque, "Algorithms for Computing the Sample Variance", 1983, eq. 1.7. NumPy adds pairwise, so
    the error of a mean grows with log n. A sum that overflows is taken again, of values scaled by a power of two.
    """
    values, starts, counts = groups.values, groups.starts, groups.counts
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        mean = np.add.reduceat(values, starts) / counts
        if not np.isfinite(mean).all():
            mean = np.where(np.isfinite(mean), mean, _scaled_mean(groups))
        deviations = values - np.repeat(mean, counts)
        residue = np.add.reduceat(deviations, starts) / counts
        np.multiply(deviations, deviations, out=deviations)
        m2 = np.add.reduceat(deviations, starts)
        # Where deviations overflow, the squares are infinite and there is nothing to correct.
        residue = np.where(np.isfinite(residue), residue, 0.0)
        m2 = np.maximum(m2 - residue * residue * counts, 0.0)
        m2 = np.where(np.isnan(m2), np.inf, m2)
        mean = np.clip(mean + residue, groups.lowest, groups.highest) + 0.0  # + 0.0: one zero, not two
    return mean, m2


def _scaled_mean(groups: Groups) -> Floats:
    scale = 2.0 ** -math.ceil(math.log2(len(groups.values)) + 1)
    mean: Floats = np.add.reduceat(groups.values * scale, groups.starts) / groups.counts / scale
    return mean


def _combine_moments(a: Partial, b: Partial) -> tuple[float, float]:
    """Chan's update, in the form that cannot overflow where the distance between the means does."""
    count = a["count"] + b["count"]
    share = b["count"] / count
    delta = b["mean"] - a["mean"]
    mean = a["mean"] + delta * share if math.isfinite(delta) else a["mean"] * (1.0 - share) + b["mean"] * share
    mean = min(max(mean, min(a["min"], b["min"])), max(a["max"], b["max"])) + 0.0
    return mean, a["m2"] + b["m2"] + (delta * share) * (delta * a["count"])


def _reduce_ends(groups: Groups) -> tuple[Floats, Floats, Ints, Ints]:
    values, times, starts, lasts = groups.values, groups.times, groups.starts, groups.lasts
    return values[starts], values[lasts], times[starts], times[lasts]


def _combine_ends(a: Partial, b: Partial) -> tuple[float, float, int, int]:
    """Of equal times the first is the one earlier in the log, the last the one later in it."""
    opening = a if a["first_ts"] <= b["first_ts"] else b
    closing = b if b["last_ts"] >= a["last_ts"] else a
    return opening["first"], closing["last"], opening["first_ts"], closing["last_ts"]


def _bigint(name: str) -> Column:
    return Column(name, pl.Int64(), "bigint")


def _double(name: str) -> Column:
    return Column(name, pl.Float64(), "double precision")


def _instant(name: str) -> Column:
    return Column(name, pl.Int64(), "timestamptz")


AGGREGATES: Final[Sequence[Aggregate]] = (
    Aggregate(
        name="count",
        columns=(_bigint("count"),),
        reduce=lambda groups: (groups.counts,),
        one=lambda _event_time, _value: (1,),
        combine=lambda a, b: (a["count"] + b["count"],),
    ),
    Aggregate(
        name="moments",
        columns=(_double("mean"), _double("m2")),  # m2: sum of squared deviations from the mean; variance × (n − 1)
        reduce=_reduce_moments,
        one=lambda _event_time, value: (value + 0.0, 0.0),
        combine=_combine_moments,
    ),
    Aggregate(
        name="min",
        columns=(_double("min"),),
        reduce=lambda groups: (groups.lowest,),
        one=lambda _event_time, value: (value,),
        combine=lambda a, b: (min(a["min"], b["min"], key=_total_order),),
    ),
    Aggregate(
        name="max",
        columns=(_double("max"),),
        reduce=lambda groups: (groups.highest,),
        one=lambda _event_time, value: (value,),
        combine=lambda a, b: (max(a["max"], b["max"], key=_total_order),),
    ),
    Aggregate(
        name="ends",
        columns=(_double("first"), _double("last"), _instant("first_ts"), _instant("last_ts")),
        reduce=_reduce_ends,
        one=lambda event_time, value: (value, value, event_time, event_time),
        combine=_combine_ends,
    ),
)

COLUMNS: Final[Sequence[Column]] = tuple(column for aggregate in AGGREGATES for column in aggregate.columns)

ROLLUPS: Final = pl.Schema(
    {
        "bucket": pl.Int64(),  # start of the window, ms
        "device_id": pl.String(),
        "metric": pl.String(),
        **{column.name: column.dtype for column in COLUMNS},
    }
)
"""One row a series and window: bucket, device_id, metric, count, mean, m2, min, max, first, last, first_ts, last_ts."""


def reduce(groups: Groups) -> dict[str, npt.NDArray[Any]]:
    """All aggregates of every group: column name → one entry a run, in the order of the runs."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for aggregate in AGGREGATES:
        columns.update(zip((c.name for c in aggregate.columns), aggregate.reduce(groups), strict=True))
    return columns


def partial(event_time: int, value: float) -> dict[str, Any]:
    """The partial of one reading: all aggregates' columns, as plain ints and floats. ``value`` is finite."""
    row: dict[str, Any] = {}
    for aggregate in AGGREGATES:
        row.update(zip((c.name for c in aggregate.columns), aggregate.one(event_time, value), strict=True))
    return row


def combine(a: Partial, b: Partial) -> dict[str, Any]:
    """The partial of the readings of both; ``a`` is earlier in the log than ``b``, which decides ties of time.

    Reads the aggregates' columns and no other; answers with exactly those. A row that several late readings
    revise is folded reading by reading in the order of their offsets, so that it does not depend on batches.
    """
    row: dict[str, Any] = {}
    for aggregate in AGGREGATES:
        row.update(zip((c.name for c in aggregate.columns), aggregate.combine(a, b), strict=True))
    return row
