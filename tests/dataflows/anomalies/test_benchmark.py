"""The benchmark command: formats, and that it judges rows as the dataflow would."""

import csv
from pathlib import Path

import numpy as np
import pytest

from dataflows.anomalies.benchmark import main, run
from dataflows.anomalies.registry import DETECTORS
from schemas.errors import OperatorError
from tests.dataflows.anomalies.feeding import START_MS, Series, feed


def _corpus(folder: Path, files: dict[str, list[tuple[str, float]]]) -> Path:
    for name, rows in files.items():
        file = folder / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([("timestamp", "value"), *rows])
    return folder


def _rows(value: np.ndarray) -> list[tuple[str, float]]:
    minutes = np.datetime64(START_MS, "ms") + np.arange(len(value)) * np.timedelta64(1, "m")
    return list(zip(np.datetime_as_string(minutes, unit="s"), value.tolist(), strict=True))


def test_scores_are_those_of_the_step_row_for_row(tmp_path: Path) -> None:
    """Files of different lengths, side by side, get the scores of their series alone, timestamps kept."""
    rng = np.random.default_rng(0)
    series = {"a/short.csv": rng.normal(0, 1, 300), "b/long.csv": np.r_[rng.normal(5, 1, 500), 90.0, 5.0]}
    corpus = _corpus(tmp_path / "corpus", {name: _rows(value) for name, value in series.items()})
    assert run(corpus, tmp_path / "out") == 2
    for name, value in series.items():
        (said,) = feed(DETECTORS["novelty"], [Series(np.arange(len(value)), value)])
        with (tmp_path / "out" / name).open() as stream:
            written = list(csv.DictReader(stream))
        assert [row["timestamp"] for row in written] == [at for at, _ in _rows(value)]
        assert [float(row["anomaly_score"]) for row in written] == said.score.tolist()


@pytest.mark.parametrize(
    ("rows", "names"),
    [([("2014-04-01 00:00:00", "nan")], "line 2"), ([("yesterday", 1.0)], "line 2"), ([("2014-04-01", "")], "line 2")],
)
def test_a_row_that_makes_no_sense_is_named(tmp_path: Path, rows: list[tuple[str, float]], names: str) -> None:
    """The message says which file and line."""
    corpus = _corpus(tmp_path, {"a/bad.csv": rows})
    with pytest.raises(OperatorError, match=rf"bad\.csv, {names}"):
        run(corpus, tmp_path / "out")


def test_an_empty_corpus_is_an_error_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear message, exit code 1; a wrong call prints how it is meant, exit code 2."""
    assert main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "no series found" in capsys.readouterr().err
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_an_unknown_detector_is_named_with_those_there_are(tmp_path: Path) -> None:
    """The message lists the registry."""
    corpus = _corpus(tmp_path, {"a/x.csv": [("2014-04-01 00:00:00", 1.0)]})
    with pytest.raises(OperatorError, match="novelty"):
        run(corpus, tmp_path / "out", "oracle")
