"""A clock that is set back ends the process, and no other clock does."""

import subprocess
import sys
from pathlib import Path

from connectors.stopping import EXIT_STUCK
from connectors.wall_clock import EXIT_CLOCK, WallClock

SET_BACK = """
import itertools, logging, time
from connectors.wall_clock import WallClock, watch
logging.basicConfig()
shown = itertools.chain([1000.0, 1000.0, 1000.0], itertools.repeat(-2600.0))
watch(WallClock(shown.__next__, lambda: 0.0), 0.01)
time.sleep(60)
"""


def test_only_a_step_back_counts_and_only_once() -> None:
    """Forward, slewed, or simply going on: nothing. What was told once is not told again."""
    shown = [100.0, 101.0, 3_702.0, 3_702.9, 103.9, 104.9]
    passed = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    clock = WallClock(iter(shown).__next__, iter(passed).__next__)
    assert [round(clock.set_back_secs(), 3) for _ in passed[1:]] == [0.0, -3_600.0, 0.1, 3_600.0, 0.0]


def test_a_process_whose_clock_is_set_back_ends_and_says_so() -> None:
    """The engine would ask no source for an hour, without a word."""
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", SET_BACK], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == EXIT_CLOCK == EXIT_STUCK
    assert "set back by 3600 s" in ended.stderr
