"""Threads and memory: what only a process of its own can show."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import settings


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


def test_memory_is_flat_when_every_window_has_new_devices():
    """Ten windows of 30,000 devices never seen before: rows and names of a closed window are let go."""
    after = alone("growth", 30_000, 12)["after_mib"]
    assert max(after[6:]) < max(after[:6]) + 15, after


def test_a_million_readings_of_many_series_take_little_memory():
    """A tenth of the size that is promised, in a tenth of the memory."""
    run = alone("peak", 100_000, 1_000_000)
    assert run["counted"] == 1_000_000
    assert run["grown_mib"] < 150, run


@pytest.mark.thorough
@pytest.mark.skipif(settings().max_examples <= 100, reason="takes --hypothesis-profile=thorough: a gigabyte, and time")
def test_ten_million_readings_of_a_million_series_stay_under_one_and_a_half_gigabytes():
    """All in one open window, and then reduced."""
    run = alone("peak", 1_000_000, 10_000_000)
    assert run["counted"] == 10_000_000
    assert run["peak_mib"] < 1_500, run
