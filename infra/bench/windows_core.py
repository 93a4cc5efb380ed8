"""The window core alone, in memory."""

from dataflows.windowing import Windows
from infra.bench.case import Result, timed
from infra.bench.windows_logs import WORKER, Fleet
from schemas.progress import Progress
from schemas.settings import WindowSettings


def core(series: int, batch: int, readings: int, minutes: int = 5) -> Result:
    """Feed a log that is in memory, in slices of ``batch`` readings."""
    slices = Fleet(series, readings, minutes).slices(batch)
    windows = Windows(WindowSettings(), Progress.begin(0), [WORKER])
    counted = rows = 0
    with timed() as clock:
        for part in slices:
            outcome = windows.feed(part)
            counted += outcome.counts.counted
            rows += len(outcome.rollups)
    assert counted == readings // 4 * 4, "readings are missing"
    return Result(counted, clock.wall_secs, clock.cpu_secs, note=f"{rows:,} rows")
