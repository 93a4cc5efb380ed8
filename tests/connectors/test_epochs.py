"""The epoch interval of the settings is the engine's, under its own command line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOW = """
import time
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.connectors.stdio import StdOutSink
from connectors import epochs

BEGAN = time.monotonic()

class Part(StatefulSourcePartition):
    def __init__(self, wanted):
        self.wanted = wanted
    def next_batch(self):
        if not self.wanted:
            raise StopIteration
        time.sleep(0.001)
        return []
    def snapshot(self):
        self.wanted -= 1
        if not self.wanted:
            print("secs", time.monotonic() - BEGAN, flush=True)

class Source(FixedPartitionedSource):
    def __init__(self, wanted):
        self.wanted = wanted
    def list_parts(self):
        return ["only"]
    def build_part(self, step_id, for_part, resume_state):
        return Part(self.wanted)

def flow(interval_ms, wanted):
    epochs.last(interval_ms)
    print("together", epochs.together_ms(), flush=True)
    made = Dataflow("counts")
    op.output("out", op.input("in", made, Source(wanted)), StdOutSink())
    return made
"""
ENDLESS = "60"  # seconds an epoch lasts by the command line: a flow that went by it would not end in time
DEADLINE_SECS = 50


def said(folder: Path, interval_ms: int, epochs: int, *options: str) -> str:
    """What the flow printed while it went through so many epochs."""
    (folder / "counting.py").write_text(FLOW)
    return subprocess.run(
        [sys.executable, "-m", "bytewax.run", f"counting:flow({interval_ms}, {epochs})", "-s", ENDLESS, *options],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_SECS,
    ).stdout


@pytest.mark.parametrize(("interval_ms", "epochs"), [(20, 15), (400, 3)])
def test_epochs_last_as_long_as_the_factory_says(tmp_path, interval_ms, epochs):
    """Each at least that, on a busy machine too, and none as long as the command line says."""
    found = said(tmp_path, interval_ms, epochs)
    assert found.startswith("together None\n"), "it is alone"
    assert float(found.split("secs ")[1].split()[0]) >= epochs * interval_ms / 1_000


def test_workers_in_company_look_once_an_epoch(tmp_path):
    """A little more seldom, so that each look ends an epoch, and none is due while another worker is waited for."""
    assert said(tmp_path, 200, 1, "-w", "2").startswith("together 250\n")
