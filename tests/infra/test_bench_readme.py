"""The README's figures are those of bench/, and nobody else's."""

import json
import shutil
from pathlib import Path

from infra.bench import readme

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_what_was_measured() -> None:
    """Its table is what the files of bench/ make."""
    shown = (ROOT / "README.md").read_text("utf-8").partition(readme.BEGIN)[2].partition(readme.END)[0]
    assert shown == readme.table(ROOT / "bench")


def test_another_measurement_is_another_table(tmp_path: Path) -> None:
    """And what stands around it stays."""
    shutil.copytree(ROOT / "bench", tmp_path / "bench")
    (tmp_path / "README.md").write_text(f"before\n{readme.BEGIN}what was\n{readme.END}after\n", "utf-8")
    path = tmp_path / "bench" / "delivery.json"
    found = json.loads(path.read_text("utf-8"))
    found["latency"]["recoveries"] = [17.0, 18.25, 19.0]
    path.write_text(json.dumps(found), "utf-8")
    readme.write(tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert text.startswith(f"before\n{readme.BEGIN}| | |")
    assert text.endswith(f"{readme.END}after\n")
    assert "| 18.2 s |" in text
    assert "what was" not in text
