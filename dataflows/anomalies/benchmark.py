"""Score a corpus of labelled series: ``python -m dataflows.anomalies.benchmark CORPUS OUT [DETECTOR]``.

Reads CORPUS/data/<category>/<name>.csv (timestamp,value) and writes OUT/<category>/<name>.csv
(timestamp,anomaly_score), a row for a row; other columns are ignored. Timestamps without a zone are UTC.

Rule: a file is one series, a row its next rollup; every row goes through the very ``step`` of the dataflow, one at a
time, in the file's order. The files go side by side, as series of one partition do; that this changes nothing is a law
of every detector (tests/dataflows/anomalies/test_laws.py). Nothing is known of a file but its rows so far.
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dataflows.anomalies.protocol import Detector, Floats, Ints, Rollups, blank
from dataflows.anomalies.registry import DETECTORS
from schemas.errors import OperatorError

_USAGE = "usage: python -m dataflows.anomalies.benchmark CORPUS OUT [DETECTOR]"


@dataclass(frozen=True, slots=True)
class LabelledSeries:
    """One file: where it lies below CORPUS/data, its timestamps as written, their instants (ms), and its values."""

    place: Path
    timestamps: tuple[str, ...]
    bucket: Ints
    value: Floats


def read(corpus: Path) -> list[LabelledSeries]:
    """All series of a corpus, by path. Raises ``OperatorError`` where there is none, or a row makes no sense."""
    data = corpus / "data"
    files = sorted(data.glob("*/*.csv"))
    if not files:
        raise OperatorError(f"no series found: {data} should hold <category>/<name>.csv files")
    return [_read(file, file.relative_to(data)) for file in files]


def judged(detector: Detector, series: Sequence[LabelledSeries]) -> list[Floats]:
    """The scores of every row of every series, strictly online."""
    rows = np.array([len(each.value) for each in series], np.int64)
    longest = int(np.max(rows))
    bucket, value = np.zeros((longest, len(series)), np.int64), np.zeros((longest, len(series)))
    for place, each in enumerate(series):
        bucket[: rows[place], place], value[: rows[place], place] = each.bucket, each.value
    state, scores = blank(detector, len(series)), np.zeros(value.shape)
    for row in range(longest):
        there = np.flatnonzero(rows > row)
        state, said = detector.step(state, Rollups.of_values(there, bucket[row, there], value[row, there]))
        scores[row, said.series] = said.score
    return [scores[:count, place] for place, count in enumerate(rows)]


def write(out: Path, series: LabelledSeries, score: Floats) -> None:
    """One score file, readable by NAB's scorer."""
    file = out / series.place
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(("timestamp", "anomaly_score"))
        lines.writerows(zip(series.timestamps, map(repr, score.tolist()), strict=True))


def run(corpus: Path, out: Path, name: str = "novelty") -> int:
    """Score ``corpus`` into ``out``; returns how many series there were."""
    if name not in DETECTORS:
        raise OperatorError(f"no detector is called {name!r}; there are: {', '.join(DETECTORS)}")
    series = read(corpus)
    for each, score in zip(series, judged(DETECTORS[name], series), strict=True):
        write(out, each, score)
    return len(series)


def _read(file: Path, place: Path) -> LabelledSeries:
    timestamps, instants, values = [], [], []
    with file.open(newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream), start=2):
            try:
                at, value = datetime.fromisoformat(row["timestamp"]), float(row["value"])
            except (KeyError, TypeError, ValueError) as error:
                raise OperatorError(f"{file}, line {number}: expected timestamp,value ({error})") from error
            if not np.isfinite(value):
                raise OperatorError(f"{file}, line {number}: the value is not a finite number")
            timestamps.append(row["timestamp"])
            instants.append(round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000))
            values.append(value)
    return LabelledSeries(place, tuple(timestamps), np.array(instants, np.int64), np.array(values, np.float64))


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if len(argv) not in (2, 3):
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        count = run(Path(argv[0]), Path(argv[1]), *argv[2:])
    except (OperatorError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} series scored into {argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
