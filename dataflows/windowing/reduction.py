"""A closed window becomes rollups: canonical order, duplicates, aggregates.

Rule: the canonical order is (series, event time, offset, place in the message), and series are in the order of their
names. Of readings equal in device, metric, event time and bits of the value, the one earliest in the log is kept.

Guarantee: the frame is a function of the window's rows and their order, to the bit. Cost: one sort of integers, and
some passes over stretches of rows that fit into a processor's cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from dataflows.windowing.canonical import Part, in_order, without_repeats
from dataflows.windowing.names import Ranks, merged
from dataflows.windowing.rows import OpenWindow
from schemas import aggregates
from schemas.aggregates import COLUMNS, ROLLUPS


class _Column:
    """A column of a window's rollups, filled a stretch at a time, in place: a million rows are not moved twice."""

    def __init__(self, length_max: int) -> None:
        self._length_max = length_max
        self._entries: npt.NDArray[Any] | None = None
        self._used = 0

    def add(self, entries: npt.NDArray[Any], width: int) -> None:
        """Entries by metric and then device, as entries by device and then metric, of which there are ``width``."""
        if self._entries is None:
            self._entries = np.empty(self._length_max, entries.dtype)
        end = self._used + len(entries)
        self._entries[self._used : end].reshape(-1, width)[:] = entries.reshape(width, -1).T
        self._used = end

    @property
    def whole(self) -> npt.NDArray[Any]:
        assert self._entries is not None, "a closed window holds a reading"
        return self._entries[: self._used]


@dataclass(frozen=True, slots=True)
class Reduced:
    """A window's rollups (``ROLLUPS``, ascending by device and metric), and what went into them."""

    rollups: pl.DataFrame
    counted: int
    duplicates: int
    devices: int
    metrics: int


def reduce_window(window: OpenWindow) -> Reduced:
    """Reduce a closed window, which holds at least one reading."""
    devices, device_ranks = merged([rows.generation.devices.ranking() for rows in window.parts])
    metrics, metric_ranks = merged([rows.generation.metrics.ranking() for rows in window.parts])
    parts = [
        Part(rows.device.whole(), device, rows.time.whole(), rows.size.whole(), rows.metric.whole(), metric, rows.shape)
        for rows, device, metric in zip(window.parts, device_ranks, metric_ranks, strict=True)
    ]
    values = _joined([rows.value.whole() for rows in window.parts])

    series_max, kept = min(len(devices) * len(metrics), len(values)), 0
    series, reduced = _Column(series_max), {column.name: _Column(series_max) for column in COLUMNS}
    for stretch in map(without_repeats, in_order(parts, values, len(devices), len(metrics))):
        starts = np.flatnonzero(np.diff(stretch.series, prepend=~stretch.series[0]))
        series.add(stretch.series[starts], stretch.width)
        kept += len(stretch.value)
        groups = aggregates.Groups(stretch.value, stretch.time + window.start, starts)
        for name, column in aggregates.reduce(groups).items():
            reduced[name].add(column, stretch.width)

    device_rank, metric_rank = np.divmod(series.whole, np.uint64(len(metrics)))
    frame = {
        "bucket": np.full(len(device_rank), window.start, np.int64),
        "device_id": devices.gather(device_rank),
        "metric": metrics.gather(metric_rank),
        **{name: pl.Series(pa.array(column.whole)) for name, column in reduced.items()},
    }
    return Reduced(
        pl.DataFrame(frame, schema=ROLLUPS),
        counted=kept,
        duplicates=len(values) - kept,
        devices=_distinct(device_rank, len(devices)),
        metrics=_distinct(metric_rank, len(metrics)),
    )


def _distinct(ranks: Ranks, count: int) -> int:
    return int(np.count_nonzero(np.bincount(ranks.view(np.int64), minlength=count)))


def _joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
