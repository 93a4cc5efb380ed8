"""What a minute of many series costs the engine of ``anomaly_flags``, in one worker: CPU seconds, memory, state."""

import io

import numpy as np

from dataflows.anomalies.flagging import Flags
from dataflows.anomalies.rules import watches
from infra.bench.case import Result, memory_mib, timed
from infra.bench.flags_calm import records
from infra.bench.flags_fleet import MINUTE_MS, START_MS, Stretch
from infra.fleet.signals import METRICS
from schemas.flags import RollupSlice
from schemas.progress import Claim, Progress
from schemas.rules_file import load_rules

SETTLED: int = 3  # minutes before the measurement: names are new in the first


def minutes(series: int, steps: int, rules: str) -> Result:
    """``steps`` minutes in which each of ``series`` series has a rollup; ``note`` says what a minute costs."""
    devices = series // len(METRICS)
    names, rng = [f"device-{number:06}" for number in range(devices)], np.random.default_rng(0)
    level = rng.normal(50, 20, (len(METRICS), devices))
    before = memory_mib("VmRSS")
    engine = Flags(watches(load_rules(rules).values()), MINUTE_MS, Claim("bench", "t", 0, 1, "", Progress.begin(0)))
    offset, cpu, wall, worst = 0, 0.0, 0.0, 0.0
    for step in range(SETTLED + steps):
        slice_ = _minute(rng, level, names, step, offset)
        offset = slice_.end
        with timed() as clock:
            engine.feed(slice_)
        if step >= SETTLED:
            cpu, wall, worst = cpu + clock.cpu_secs, wall + clock.wall_secs, max(worst, clock.cpu_secs)
    with timed() as clock:
        arrays = engine.snapshot().arrays
    kept = sum(array.nbytes for array in arrays.values())
    packed = io.BytesIO()
    np.savez_compressed(packed, **dict(arrays))  # type: ignore[arg-type]
    peak = memory_mib("VmHWM")
    note = (
        f"{cpu / steps:.2f} CPU s a minute (worst {worst:.2f}), {peak - before:.0f} MiB above the start, "
        f"{kept / series:.0f} B of state a series ({len(packed.getvalue()) / series:.0f} compressed), "
        f"snapshot {clock.cpu_secs:.2f} s"
    )
    return Result(series * steps, wall, cpu, peak, note)


def _minute(rng: np.random.Generator, level: np.ndarray, names: list[str], step: int, offset: int) -> RollupSlice:
    mean = level[None] + rng.normal(0, 1, (1, *level.shape))
    spread = rng.random(mean.shape)
    bucket = np.array([START_MS + step * MINUTE_MS])
    there = np.ones((1, level.shape[1]), np.bool_)
    return records(Stretch(bucket, there, mean, spread, mean - spread, mean + spread), names, offset)
