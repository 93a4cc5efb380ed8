"""Beside Bytewax's own windowing: equal where that is right, and where it is not."""

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from infra.bench.windows_bytewax import START, STILL
from tests.dataflows.windowing.replay import answer, rows_by_key, run
from tests.oracles import Message, Rules, Tick
from tests.strategies import Log

NOON = 1_763_726_400_000
Reading = tuple[str, tuple[datetime, float]]


def fold(readings: list[Reading], now: Callable[[], datetime]) -> tuple[list[Any], list[Any]]:
    """What ``fold_window`` emits (device, window start in ms, count, sum), and what it calls late."""
    down: list[Any] = []
    late: list[Any] = []
    flow = Dataflow("own_windowing")
    keyed = op.input("in", flow, TestingSource(readings, batch_size=1))
    clock = win.EventClock(lambda r: r[0], timedelta(seconds=10), now_getter=now)
    windower = win.TumblingWindower(align_to=START, length=timedelta(minutes=1))
    rows = win.fold_window(
        "fold",
        keyed,
        clock,
        windower,
        lambda: (0, 0.0),
        lambda so_far, reading: (so_far[0] + 1, so_far[1] + reading[1]),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        ordered=False,
    )
    op.output("down", rows.down, TestingSink(down))
    op.output("late", rows.late, TestingSink(late))
    run_main(flow)
    return [(device, window * 60_000, *row) for device, (window, row) in down], late


def core(readings: list[Reading]) -> Any:
    """The core over the same readings, appended when they happened; a tick at the end closes all."""
    records: list[Message | Tick] = []
    newest = 0
    for offset, (device, (time, value)) in enumerate(readings):
        event = int(time.timestamp() * 1000)
        newest = max(newest, event) if event < NOON + 10**7 else newest
        records.append(Message(offset, newest, event, device, (("t", value),)))
    end = newest + 300_000
    records.append(Tick(len(records), end, "ingest-0", end))
    return run(Rules(workers=("ingest-0",)), Log(tuple(records), 0, len(records)))


def at(secs: float) -> datetime:
    return datetime.fromtimestamp(NOON / 1000 + secs, UTC)


def test_orderly_readings_give_equal_rows():
    """Devices that never fall silent, disorder below the allowed lateness: the same windows, counts and sums."""
    readings = [("ab"[i % 2], (at(i * 4 - (7 if i % 3 == 0 else 0)), float(i))) for i in range(200)]
    theirs, late = fold(readings, lambda: STILL)
    ours = {
        (d, b): (row["count"], row["mean"] * row["count"]) for (b, d, _), row in rows_by_key(core(readings)).items()
    }
    assert late == []
    assert {(device, window): (count, pytest.approx(total)) for device, window, count, total in theirs} == ours


def test_a_straggler_of_a_quiet_key_reopens_a_published_window_there_and_is_late_here():
    """Their state of a key goes with its last window: the minute is emitted twice, and nothing is called late."""
    readings = [("a", (at(10), 1.0)), ("b", (at(200), 1.0)), ("a", (at(20), 2.0))]
    ticking = iter(range(10**6))
    theirs, late = fold(readings, lambda: STILL + timedelta(minutes=10) * next(ticking))
    emitted = defaultdict(list)
    for device, window, count, _ in theirs:
        emitted[device, window].append(count)
    assert emitted["a", NOON] == [1, 1]
    assert late == []

    ours = answer(core([*readings[:2], ("b", (at(201), 1.0)), ("b", (at(230), 1.0)), readings[2]]))
    assert next(row for row in ours.rollups if row[:2] == (NOON, "a"))[3] == 1
    assert [row[4] for row in ours.late] == ["a"]


def test_one_reading_from_the_future_makes_a_devices_next_ones_late_there_and_none_here():
    """A year ahead, once: their watermark of the key follows; here that one reading is refused."""
    honest = [("a", (at(i), 1.0)) for i in range(60)]
    readings = [honest[0], ("a", (at(365 * 86_400), 1.0)), *honest[1:]]
    _, late = fold(readings, lambda: STILL)
    assert len(late) == 59

    ours = answer(core(readings))
    assert ours.late == []
    assert [reason for _, reason, _ in ours.refused] == ["timestamp_in_future"]
    assert ours.rollups[0][3] == 60
