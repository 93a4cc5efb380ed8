"""``./justw bench anomalies --corpus DIR``: what the detector is worth, and what it costs.

Quality: the benchmark command judges the corpus, and the scorer that lies in the corpus (DIR/score.py, as NAB's) says
what that is worth. Cost: seconds a step and bytes a series, over many series, one step a minute.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataflows.anomalies import benchmark
from dataflows.anomalies.protocol import Detector, Rollups, blank, bytes_per_series
from dataflows.anomalies.registry import DETECTORS
from schemas.errors import OperatorError

_MINUTE_MS = 60_000
_STEPS = 60  # an hour, so that blocks end and slots change


def quality(corpus: Path, out: Path, detector: str) -> str:
    """Judge and score ``corpus``; the scorer's own words."""
    scorer = corpus / "score.py"
    if not scorer.is_file():
        raise OperatorError(f"{scorer} is missing: a corpus holds data/, windows.json and its scorer")
    benchmark.run(corpus, out, detector)
    done = subprocess.run([sys.executable, scorer, corpus, out], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OperatorError(f"{scorer} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.rstrip()


def step_secs(detector: Detector, series: int) -> float:
    """Median seconds of a step over ``series`` series of noise, each with a rollup."""
    rng, places, state, taken = np.random.default_rng(0), np.arange(series), blank(detector, series), []
    for minute in range(_STEPS):
        bucket, value = np.full(series, minute * _MINUTE_MS), rng.normal(20, 1, series)
        rollups = Rollups.of_values(places, bucket, value)
        begun = time.perf_counter()
        state, _ = detector.step(state, rollups)
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="bench anomalies", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus", type=Path, required=True, help="holds data/<category>/<name>.csv, windows.json, score.py"
    )
    parser.add_argument("--out", type=Path, help="keep the score files here")
    parser.add_argument("--detector", choices=sorted(DETECTORS), default="novelty")
    parser.add_argument("--series", type=int, default=100_000, help="of the measurement of cost")
    chosen = parser.parse_args(argv)
    detector = DETECTORS[chosen.detector]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            begun = time.perf_counter()
            print(quality(chosen.corpus, chosen.out or Path(scratch), detector.name))
            print(f"corpus judged  {time.perf_counter() - begun:6.1f} s")
    except OperatorError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"state          {bytes_per_series(detector):6d} bytes a series")
    print(f"a step         {step_secs(detector, chosen.series):6.2f} s over {chosen.series:,} series")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
