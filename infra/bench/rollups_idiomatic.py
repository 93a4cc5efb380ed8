"""The flow that Bytewax's documentation leads to: one item a message, one key a series, its own windows."""

import csv
import json
import math
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from infra.bench.case import memory_mib, timed
from infra.bench.windows_bytewax import START, STILL, Moments, add, merge
from schemas.telemetry_pb2 import Telemetry


class _Rows(DynamicSink[Any], StatelessSinkPartition[Any]):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> "_Rows":
        return self

    def write_batch(self, items: list[Any]) -> None:
        self.rows += items


def main(bootstrap_servers: str, topic: str, rows_path: str) -> None:
    """Read the whole topic and stop at its end."""
    flow, kept = Dataflow("idiomatic"), _Rows()
    properties = {"fetch.queue.backoff.ms": "5"}  # as ours: librdkafka's default leaves any reader idle
    source = KafkaSource([bootstrap_servers], [topic], tail=False, batch_size=10_000, add_config=properties)
    readings = op.flat_map("decode", op.input("in", flow, source), _readings)
    clock: Any = win.EventClock(lambda r: r[0], timedelta(seconds=10), now_getter=lambda: STILL)
    windower = win.TumblingWindower(align_to=START, length=timedelta(minutes=1))
    empty: Moments = (0, 0.0, 0.0, math.inf, -math.inf)
    rows = win.fold_window("fold", readings, clock, windower, lambda: empty, add, merge, ordered=False)
    op.output("out", rows.down, kept)
    with timed() as clocked:
        run_main(flow)
    with open(rows_path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["bucket", "device_id", "metric", "count", "mean", "m2", "min", "max"])
        out.writerows([window * 60_000, *series.split("/"), *moments] for series, (window, moments) in kept.rows)
    said = {"wall_secs": clocked.wall_secs, "cpu_secs": clocked.cpu_secs, "peak_mib": memory_mib("VmHWM")}
    print(json.dumps(said))


def _readings(message: Any) -> list[tuple[str, tuple[datetime, float]]]:
    assert isinstance(message, KafkaSourceMessage)
    telemetry = Telemetry.FromString(message.value)
    time = START + timedelta(milliseconds=telemetry.ts)
    return [(f"{telemetry.device_id}/{metric}", (time, value)) for metric, value in telemetry.metrics.items()]


assert START == datetime(1970, 1, 1, tzinfo=UTC), "windows are numbered from the epoch"

if __name__ == "__main__":
    main(*sys.argv[1:])
