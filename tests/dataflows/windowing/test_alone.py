"""Threads and memory: what only a process of its own can show."""

import json
import os
import subprocess
import sys
from typing import Any


def alone(*arguments: object, threads: int = 1) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.dataflows.windowing.alone", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"POLARS_MAX_THREADS": str(threads)}, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_threads_and_batches_are_invisible():
    """Law 2: one Polars thread or four, batches of 40 thousand readings or of 900, the same rows to the bit."""
    runs = [alone("digest", 4_000, 200_000, batch, threads=n) for batch, n in ((40_000, 1), (40_000, 4), (900, 2))]
    assert [run["threads"] for run in runs] == [1, 4, 2]
    assert len({run["digest"] for run in runs}) == 1
    assert runs[0]["rows"] > 10_000


def test_memory_is_flat_when_every_hour_has_new_devices():
    """Twelve closed hours of 30,000 devices never seen before: their rows and names, 3 MB an hour, are let go."""
    after = alone("growth", 30_000, 1, 12)["after_mib"]
    assert len(after) == 12
    assert max(after[6:]) < max(after[:6]) + 25, after


def test_ten_million_readings_of_a_million_series_stay_under_one_and_a_half_gigabytes():
    """All in one open window, and then reduced."""
    run = alone("peak", 1_000_000, 10_000_000)
    assert run["counted"] == 10_000_000
    assert run["peak_mib"] < 1_500, run
