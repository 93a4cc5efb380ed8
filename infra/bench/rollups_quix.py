"""Quix Streams on the log: tumbling windows of a minute with ten seconds of grace, a key a device, final results.

Run by .venv-peers, which has Quix Streams and none of our packages but the protobuf classes. One key a device is its
quickest way: a key a series takes a repartition through Kafka. Windows close with their partition.
"""

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

from quixstreams import Application

from schemas.telemetry_pb2 import Telemetry

Moments = list[float]  # count, mean, m2, min, max
IDLE_SECS = 5.0  # silence that ends the program; it is not measured


def main(bootstrap_servers: str, topic: str, rows_path: str) -> None:
    clock: list[tuple[float, float]] = []
    rows: list[list[Any]] = []
    app = Application(
        broker_address=bootstrap_servers,
        consumer_group=f"quix-{time.time_ns()}",
        auto_offset_reset="earliest",
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
        consumer_poll_timeout=0.1,
        state_dir=Path("quix-state"),
        loglevel="ERROR",
    )
    source = app.topic(topic, value_deserializer="bytes", timestamp_extractor=lambda value, *_: _parsed(value).ts)

    def parse(value: bytes) -> dict[str, float]:
        if not clock:
            clock.append((time.perf_counter(), time.process_time()))
        return dict(_parsed(value).metrics)

    def emit(window: dict[str, Any], key: bytes, *_: object) -> None:
        device = key.decode()
        rows.extend([window["start"], device, metric, *moments] for metric, moments in window["value"].items())
        clock[1:] = [(time.perf_counter(), time.process_time())]

    windows = app.dataframe(source).apply(parse).tumbling_window(60_000, grace_ms=10_000)
    windows.reduce(_add, _first).final(closing_strategy="partition").update(emit, metadata=True)
    app.run(timeout=IDLE_SECS, collect=False)

    with open(rows_path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["bucket", "device_id", "metric", "count", "mean", "m2", "min", "max"])
        out.writerows([*row[:3], int(row[3]), *row[4:]] for row in rows)
    (began, cpu_began), (ended, cpu_ended) = clock[0], clock[-1]
    print(json.dumps({"wall_secs": ended - began, "cpu_secs": cpu_ended - cpu_began, "peak_mib": _peak_mib()}))


def _parsed(value: bytes) -> Telemetry:
    return Telemetry.FromString(value)


def _first(metrics: dict[str, float]) -> dict[str, Moments]:
    return {metric: [1, value, 0.0, value, value] for metric, value in metrics.items()}


def _add(so_far: dict[str, Moments], metrics: dict[str, float]) -> dict[str, Moments]:
    for metric, value in metrics.items():
        if metric not in so_far:
            so_far[metric] = [1, value, 0.0, value, value]
            continue
        count, mean, m2, low, high = so_far[metric]
        count += 1
        delta = value - mean
        mean += delta / count
        so_far[metric] = [count, mean, m2 + delta * (value - mean), min(low, value), max(high, value)]
    return so_far


def _peak_mib() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
