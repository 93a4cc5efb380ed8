"""Runs of the core that need a process of their own: `python -m tests.dataflows.windowing.alone`, printing JSON."""

import hashlib
import json
import sys
from typing import Any

import numpy as np
import polars as pl

from dataflows.windowing import Windows
from infra.bench.case import memory_mib
from infra.bench.windows_logs import BASE_MS, WORKER, Fleet
from schemas.frames import MESSAGES, TICKS
from schemas.log import LogSlice
from schemas.progress import Progress
from schemas.settings import WindowSettings


def resident_mib() -> float:
    return memory_mib("VmRSS")


def digest(series: int, readings: int, batch: int) -> dict[str, Any]:
    """The rows of a log, to the bit, as one number; and how many threads Polars had."""
    windows = Windows(WindowSettings(), Progress.begin(0), [WORKER])
    whole, rows = hashlib.sha256(), 0
    for part in Fleet(series, readings, minutes=3).slices(batch):
        rollups = windows.feed(part).rollups
        rows += len(rollups)
        if len(rollups):
            whole.update(rollups.select("device_id", "metric").write_csv().encode())
            numbers = rollups.drop("device_id", "metric")
            whole.update(b"".join(numbers[name].to_numpy().tobytes() for name in numbers.columns))
    return {"digest": whole.hexdigest(), "rows": rows, "threads": pl.thread_pool_size()}


def peak(series: int, readings: int) -> dict[str, Any]:
    """How much memory a log takes, all of it in windows that are open at once."""
    before = resident_mib()
    windows = Windows(WindowSettings(), Progress.begin(0), [WORKER])
    random, width, step = np.random.default_rng(1), 4, 25_000
    devices = pl.Series([f"device-{i:07d}" for i in range(series // width)])
    counted, messages = 0, readings // width
    for low in range(0, messages, step):
        times = BASE_MS + np.arange(low, low + step) * 60_000 // messages
        frame = pl.DataFrame(
            {
                "offset": np.arange(low, low + step),
                "append_time": times,
                "event_time": times,
                "device_id": devices.gather(random.integers(0, len(devices), step)),
                "metric": pl.Series(["t", "humidity", "pressure", "battery_level"] * step)
                .reshape((step, width))
                .cast(pl.List(pl.String())),
                "value": pl.Series(random.normal(20, 5, (step, width))).cast(pl.List(pl.Float64())),
            },
            schema=MESSAGES,
        )
        windows.feed(LogSlice(0, low, low + step, frame, TICKS.to_frame()))
    after = BASE_MS + 600_000
    tick = pl.DataFrame([(messages, after, WORKER, after)], schema=TICKS, orient="row")
    outcome = windows.feed(LogSlice(0, messages, messages + 1, MESSAGES.to_frame(), tick))
    counted = outcome.counts.counted
    highest = memory_mib("VmHWM")
    return {"peak_mib": highest, "grown_mib": highest - before, "counted": counted, "rows": len(outcome.rollups)}


def growth(series: int, windows_an_hour: int, hours: int) -> dict[str, Any]:
    """Memory after each of so many hours of log, every one with devices never seen before in all its windows."""
    length = 3_600_000 // windows_an_hour
    core = Windows(WindowSettings(length_secs=length // 1000), Progress.begin(0), [WORKER])
    after, offset, rows = [], 0, 0
    for hour in range(hours):
        devices = pl.Series([f"hour-{hour}-device-{i:080d}" for i in range(series)])
        for number in range(hour * windows_an_hour, (hour + 1) * windows_an_hour):
            start = BASE_MS // length * length + number * length
            for low in range(0, series, 10_000):
                some = devices.slice(low, 10_000)
                count = len(some)
                frame = pl.DataFrame(
                    {
                        "offset": np.arange(offset, offset + count),
                        "append_time": np.full(count, start + 30_000),
                        "event_time": np.full(count, start + low % 30_000),
                        "device_id": some,
                        "metric": pl.repeat(["t"], count, dtype=pl.List(pl.String()), eager=True),
                        "value": pl.repeat([1.0], count, dtype=pl.List(pl.Float64()), eager=True),
                    },
                    schema=MESSAGES,
                )
                core.feed(LogSlice(0, offset, offset + count, frame, TICKS.to_frame()))
                offset += count
            said = start + length + 10_000
            tick = pl.DataFrame([(offset, said, WORKER, said)], schema=TICKS, orient="row")
            rows += len(core.feed(LogSlice(0, offset, offset + 1, MESSAGES.to_frame(), tick)).rollups)
            offset += 1
        after.append(resident_mib())
    assert rows == series * windows_an_hour * hours
    return {"after_mib": after}


if __name__ == "__main__":
    run = {"digest": digest, "peak": peak, "growth": growth}[sys.argv[1]]
    print(json.dumps(run(*map(int, sys.argv[2:]))))
