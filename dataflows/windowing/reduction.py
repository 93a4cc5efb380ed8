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

from dataflows.windowing.canonical import Part, in_order, without_repeats
from dataflows.windowing.names import Ranks, merged
from dataflows.windowing.rows import OpenWindow
from schemas import aggregates
from schemas.aggregates import COLUMNS, ROLLUPS


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

    series, kept = [], 0
    reduced: dict[str, list[npt.NDArray[Any]]] = {column.name: [] for column in COLUMNS}
    for stretch in map(without_repeats, in_order(parts, values, len(devices), len(metrics))):
        starts = np.flatnonzero(np.diff(stretch.series, prepend=~stretch.series[0]))
        series.append(_interleaved(stretch.series[starts], stretch.width))
        kept += len(stretch.value)
        groups = aggregates.Groups(stretch.value, stretch.time + window.start, starts)
        for name, column in aggregates.reduce(groups).items():
            reduced[name].append(_interleaved(column, stretch.width))

    device_rank, metric_rank = np.divmod(_joined(series), np.uint64(len(metrics)))
    frame = {
        "bucket": np.full(len(device_rank), window.start, np.int64),
        "device_id": devices.gather(device_rank),
        "metric": metrics.gather(metric_rank),
        **{name: _joined(columns) for name, columns in reduced.items()},
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


def _interleaved(column: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Entries by metric and then device as entries by device and then metric, of which there are ``width``."""
    return column if width == 1 else column.reshape(width, -1).T.ravel()


def _joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
