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

class Part(StatefulSourcePartition):
    def __init__(self):
        self.snapshots, self.until = 0, time.monotonic() + 1.2
    def next_batch(self):
        if time.monotonic() > self.until:
            print("snapshots", self.snapshots, flush=True)
            raise StopIteration
        time.sleep(0.001)
        return []
    def snapshot(self):
        self.snapshots += 1

class Source(FixedPartitionedSource):
    def list_parts(self):
        return ["only"]
    def build_part(self, step_id, for_part, resume_state):
        return Part()

def flow(interval_ms):
    epochs.last(interval_ms)
    print("together", epochs.together_ms(), flush=True)
    made = Dataflow("counts")
    op.output("out", op.input("in", made, Source()), StdOutSink())
    return made
"""


@pytest.mark.parametrize(("interval_ms", "fewest", "most"), [(20, 15, 60), (400, 1, 4)])
def test_epochs_last_as_long_as_the_factory_says(tmp_path, interval_ms, fewest, most):
    """With ``-s 1`` on the command line, a second or so holds as many epochs as the interval asked for allows."""
    (tmp_path / "counting.py").write_text(FLOW)
    done = subprocess.run(
        [sys.executable, "-m", "bytewax.run", f"counting:flow({interval_ms})", "-s", "1"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.startswith("together None\n"), "it is alone"
    assert fewest <= int(done.stdout.split("snapshots ")[1].split()[0]) <= most


def test_workers_in_company_look_once_an_epoch(tmp_path):
    """A little more seldom, so that each look ends an epoch, and none is due while another worker is waited for."""
    (tmp_path / "counting.py").write_text(FLOW)
    done = subprocess.run(
        [sys.executable, "-m", "bytewax.run", "counting:flow(200)", "-s", "1", "-w", "2"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.startswith("together 250\n")
