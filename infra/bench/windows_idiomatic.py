"""The flow that Bytewax's documentation leads to: one item a message, one key a series, its own windows."""

import math
from datetime import timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

from infra.bench.case import Result, timed
from infra.bench.windows_bytewax import START, STILL, Moments, Tally, add, merge
from infra.bench.windows_logs import METRICS
from schemas.telemetry_pb2 import Telemetry


def measure(bootstrap_servers: str, topic: str, messages: int) -> Result:
    """Read the whole topic and stop at its end."""
    flow, tally = Dataflow("idiomatic"), Tally()
    source = KafkaSource([bootstrap_servers], [topic], tail=False, batch_size=10_000)
    readings = op.flat_map("decode", op.input("in", flow, source), _readings)
    clock: Any = win.EventClock(lambda r: r[0], timedelta(seconds=10), now_getter=lambda: STILL)
    windower = win.TumblingWindower(align_to=START, length=timedelta(minutes=1))
    empty: Moments = (0, 0.0, 0.0, math.inf, -math.inf)
    rows = win.fold_window("fold", readings, clock, windower, lambda: empty, add, merge, ordered=False)
    op.output("out", op.map("count", rows.down, lambda row: (1, row[1][1][0])), tally)
    with timed() as clocked:
        run_main(flow)
    lost = messages * len(METRICS) - tally.counted
    note = f"{messages / clocked.wall_secs / 1e6:.3f} M messages/s, {lost:,} readings dropped as late"
    return Result(messages * len(METRICS), clocked.wall_secs, clocked.cpu_secs, note=note)


def _readings(message: Any) -> list[tuple[str, tuple[Any, float]]]:
    assert isinstance(message, KafkaSourceMessage)
    telemetry = Telemetry.FromString(message.value)
    time = START + timedelta(milliseconds=telemetry.ts)
    return [(f"{telemetry.device_id}/{metric}", (time, value)) for metric, value in telemetry.metrics.items()]
