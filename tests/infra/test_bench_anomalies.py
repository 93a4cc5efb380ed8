"""The bench of the detectors runs the benchmark command, the corpus's own scorer, and a measurement of cost."""

from pathlib import Path

import pytest

from infra.bench.anomalies import main

_SCORER = """
import sys
from pathlib import Path
rows = [line for file in sorted(Path(sys.argv[2]).glob("*/*.csv")) for line in file.read_text().splitlines()[1:]]
print("scored", len(rows), "rows")
"""


def _corpus(folder: Path) -> Path:
    (folder / "data" / "kind").mkdir(parents=True)
    for name, rows in (("one", 60), ("two", 90)):
        lines = [f"2026-01-01 00:{row // 60:02}:{row % 60:02},{row % 7}" for row in range(rows)]
        (folder / "data" / "kind" / f"{name}.csv").write_text("\n".join(["timestamp,value", *lines]) + "\n")
    return folder


def test_it_prints_the_scorers_words_and_the_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The scorer of the corpus sees a score for every row of every file; bytes and seconds follow."""
    corpus = _corpus(tmp_path)
    (corpus / "score.py").write_text(_SCORER)
    assert main(["--corpus", str(corpus), "--series", "10"]) == 0
    said = capsys.readouterr().out
    assert "scored 150 rows" in said
    assert "bytes a series" in said
    assert "over 10 series" in said


def test_a_corpus_without_a_scorer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One message says what is missing where."""
    assert main(["--corpus", str(_corpus(tmp_path)), "--series", "10"]) == 1
    assert "score.py is missing" in capsys.readouterr().err


def test_a_scorer_that_fails_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own last words are passed on."""
    corpus = _corpus(tmp_path)
    (corpus / "score.py").write_text("import sys; sys.exit('windows.json is broken')")
    assert main(["--corpus", str(corpus), "--series", "10"]) == 1
    assert "windows.json is broken" in capsys.readouterr().err
