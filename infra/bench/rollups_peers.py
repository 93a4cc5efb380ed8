"""The same answer from others: each is a program of its own, run on a log it can bear, which writes its rows to a file.

A program is told the servers, the topic and where to write rows (CSV: bucket, device_id, metric, count, mean, m2, min,
max); it reads the whole topic, and prints a line of JSON: wall_secs, cpu_secs and peak_mib.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import polars as pl

from infra.bench.case import Result
from infra.bench.rollups_log import Filled
from schemas.errors import OperatorError

ROOT: Final = Path(__file__).parents[2]
RUN_SECS_MAX: Final = 900
PEERS_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
PROGRAMS: Final = {
    "Bytewax `fold_window`": ("infra.bench.rollups_idiomatic", Path(sys.executable)),
    "Quix Streams 3.28": ("infra.bench.rollups_quix", PEERS_PYTHON),
}


def measure(name: str, bootstrap_servers: str, filled: Filled, folder: Path) -> Result:
    """Run one of PROGRAMS in ``folder``, and compare its rows: the note says how right they are."""
    module, python = PROGRAMS[name]
    if (
        not python.exists()
        and subprocess.run([sys.executable, ROOT / "infra" / "bootstrap.py", "sync", "peers"], check=False).returncode
    ):
        raise OperatorError(f"{python} could not be made; see above. --only minute_rollups does without.")
    rows = folder / "rows.csv"
    command = [python, "-m", module, bootstrap_servers, filled.topic, rows]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_SECS_MAX, check=False
    )
    if done.returncode:
        raise OperatorError(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    wrong = filled.difference(pl.read_csv(rows))
    note = wrong or f"{len(filled.rows):,} rows, all equal"
    return Result(filled.messages * 4, said["wall_secs"], said["cpu_secs"], said["peak_mib"], note)
