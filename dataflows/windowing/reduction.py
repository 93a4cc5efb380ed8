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
from dataflows.windowing.names import Codes, Names
from dataflows.windowing.rows import OpenWindow
from schemas import aggregates
from schemas.aggregates import COLUMNS, ROLLUPS

Unsigned = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Reduced:
    """A window's rollups (``ROLLUPS``, ascending by device and metric), and what went into them."""

    rollups: pl.DataFrame
    counted: int
    duplicates: int
    devices: int


def reduce_window(window: OpenWindow) -> Reduced:
    """Reduce a closed window, which holds at least one reading."""
    device = [rows.device.whole() for rows in window.parts]
    metric = [rows.metric.whole() for rows in window.parts]
    devices, device_ranks = _ranked([rows.generation.devices for rows in window.parts], device)
    metrics, metric_ranks = _ranked([rows.generation.metrics for rows in window.parts], metric)
    parts = [
        Part(device[i], device_ranks[i], rows.time.whole(), rows.size.whole(), metric[i], metric_ranks[i])
        for i, rows in enumerate(window.parts)
    ]
    values = _joined([rows.value.whole() for rows in window.parts])

    series, kept = [], 0
    reduced: dict[str, list[npt.NDArray[Any]]] = {column.name: [] for column in COLUMNS}
    for stretch in in_order(parts, len(devices), len(metrics)):
        stretch, chosen = without_repeats(stretch, values[stretch.place])
        starts = np.flatnonzero(np.diff(stretch.series, prepend=~stretch.series[0]))
        series.append(stretch.series[starts])
        kept += len(chosen)
        groups = aggregates.Groups(chosen, stretch.time + window.start, starts)
        for name, column in aggregates.reduce(groups).items():
            reduced[name].append(column)

    device_rank, metric_rank = np.divmod(_joined(series), np.uint64(len(metrics)))
    frame = {
        "bucket": np.full(len(device_rank), window.start, np.int64),
        "device_id": devices.gather(device_rank),
        "metric": metrics.gather(metric_rank),
        **{name: _joined(columns) for name, columns in reduced.items()},
    }
    return Reduced(pl.DataFrame(frame, schema=ROLLUPS), kept, len(values) - kept, len(devices))


def _ranked(names: Sequence[Names], codes: Sequence[Codes]) -> tuple[pl.Series, list[Unsigned]]:
    """The names that occur, in order and once each; and for each generation the place of its codes among them."""
    present = [_distinct(some, of.count) for of, some in zip(names, codes, strict=True)]
    known = pl.concat([of.names(some) for of, some in zip(names, present, strict=True)])
    order = known.arg_sort().to_numpy()
    ordered = known.gather(order)
    is_new = np.ones(len(ordered), bool)
    is_new[1:] = (ordered.slice(1) != ordered.slice(0, len(ordered) - 1)).to_numpy()
    places = np.empty(len(order), np.uint64)
    places[order] = np.cumsum(is_new) - 1
    ranks = []
    for of, some in zip(names, present, strict=True):
        by_code = np.zeros(of.count, np.uint64)
        by_code[some], places = places[: len(some)], places[len(some) :]
        ranks.append(by_code)
    return ordered.filter(pl.Series(is_new)), ranks


def _distinct(codes: Codes, count: int) -> Codes:
    seen = np.zeros(count, bool)
    seen[codes] = True
    return np.flatnonzero(seen).astype(np.uint32)


def _joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
