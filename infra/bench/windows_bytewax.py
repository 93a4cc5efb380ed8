"""Bytewax with the window core, and Bytewax's own windowing, over the same readings in memory, one worker each.

What differs: Bytewax's windows know one clock a key, which waits ten seconds for stragglers, and drop what is later;
system time is held still, so that its wait is by event time alone, as ours is. Its items are made before the clock
starts, with aware datetimes, as its documentation has it.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from dataflows.windowing import Windows
from infra.bench.case import Result, timed
from infra.bench.windows_logs import WORKER, Fleet
from schemas.log import LogSlice, Outcome
from schemas.progress import Progress
from schemas.settings import WindowSettings

START = datetime(1970, 1, 1, tzinfo=UTC)
STILL = datetime(2025, 11, 21, tzinfo=UTC)

Moments = tuple[int, float, float, float, float]  # count, mean, m2, min, max


class _Batches(DynamicSource[Any], StatelessSourcePartition[Any]):
    """Hands out batches that are in memory."""

    def __init__(self, batches: list[list[Any]]) -> None:
        self._batches = iter(batches)

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> "_Batches":
        return self

    def next_batch(self) -> list[Any]:
        return next(self._batches)


class Tally(DynamicSink[Any], StatelessSinkPartition[Any]):
    """Adds up the counts of the rows it is given."""

    def __init__(self) -> None:
        self.rows = self.counted = 0

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> "Tally":
        return self

    def write_batch(self, items: list[tuple[int, int]]) -> None:
        for rows, counted in items:
            self.rows += rows
            self.counted += counted


def _measured(flow: Dataflow, tally: Tally, readings: int) -> Result:
    with timed() as clock:
        run_main(flow)
    assert tally.counted == readings, f"{readings - tally.counted} readings are missing"
    return Result(readings, clock.wall_secs, clock.cpu_secs, note=f"{tally.rows:,} rows")


def core(series: int, readings: int, minutes: int, batch: int = 10_000) -> Result:
    """A flow of slices through the window core, as ``minute_rollups`` has it."""
    windows = Windows(WindowSettings(), Progress.begin(0), [WORKER])

    def roll(slices: list[LogSlice]) -> Iterator[tuple[int, int]]:
        for part in slices:
            outcome: Outcome = windows.feed(part)
            yield len(outcome.rollups), outcome.counts.counted

    tally, flow = Tally(), Dataflow("core")
    source = _Batches([[part] for part in Fleet(series, readings, minutes).slices(batch)])
    op.output("out", op.flat_map_batch("roll", op.input("in", flow, source), roll), tally)
    return _measured(flow, tally, readings)


def _items(series: int, readings: int, minutes: int, batch: int) -> list[list[tuple[str, tuple[datetime, float]]]]:
    frame = (
        Fleet(series, readings, minutes)
        .frame()
        .explode("metric", "value")
        .select("device_id", "metric", "event_time", "value")
    )
    items = [
        (f"{device}/{metric}", (START + timedelta(milliseconds=time), value))
        for device, metric, time, value in frame.iter_rows()
    ]
    return [items[low : low + batch] for low in range(0, len(items), batch)]


def _clock() -> win.EventClock[Any]:
    return win.EventClock(
        ts_getter=lambda reading: reading[0], wait_for_system_duration=timedelta(seconds=10), now_getter=lambda: STILL
    )


def add(so_far: Moments, reading: tuple[datetime, float]) -> Moments:
    count, mean, m2, low, high = so_far
    value = reading[1]
    count += 1
    delta = value - mean
    mean += delta / count
    return count, mean, m2 + delta * (value - mean), value if value < low else low, value if value > high else high


def merge(a: Moments, b: Moments) -> Moments:
    count = a[0] + b[0]
    delta = b[1] - a[1]
    m2 = a[2] + b[2] + delta * delta * a[0] * b[0] / count
    return count, a[1] + delta * b[0] / count, m2, min(a[3], b[3]), max(a[4], b[4])


def fold_window(series: int, readings: int, minutes: int, batch: int = 10_000) -> Result:
    """Bytewax's ``fold_window``, a key a series: count, mean, m2, min and max."""
    tally, flow = Tally(), Dataflow("fold_window")
    keyed = op.input("in", flow, _Batches(_items(series, readings, minutes, batch)))
    windower = win.TumblingWindower(align_to=START, length=timedelta(minutes=1))
    empty: Moments = (0, 0.0, 0.0, math.inf, -math.inf)
    rows = win.fold_window("fold", keyed, _clock(), windower, lambda: empty, add, merge, ordered=False)
    op.output("out", op.map("count", rows.down, lambda row: (1, row[1][1][0])), tally)
    return _measured(flow, tally, readings)


def collect_window(series: int, readings: int, minutes: int, batch: int = 10_000) -> Result:
    """Bytewax's ``collect_window``, a key a series, reduced by a fold over the list when it closes."""
    tally, flow = Tally(), Dataflow("collect_window")
    keyed = op.input("in", flow, _Batches(_items(series, readings, minutes, batch)))
    windower = win.TumblingWindower(align_to=START, length=timedelta(minutes=1))
    rows = win.collect_window("collect", keyed, _clock(), windower, ordered=False)

    def reduce(row: tuple[str, tuple[int, list[tuple[datetime, float]]]]) -> tuple[int, int]:
        so_far: Moments = (0, 0.0, 0.0, math.inf, -math.inf)
        for reading in row[1][1]:
            so_far = add(so_far, reading)
        return 1, so_far[0]

    op.output("out", op.map("reduce", rows.down, reduce), tally)
    return _measured(flow, tally, readings)
