"""A process stops when it is asked to, and says one thing when an operator has to act."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connectors import stopping
from schemas.errors import FencedOff, OperatorError
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
DEADLINE_SECS = 60.0

FLOW = """
import logging
import sys
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import TestingSink
from connectors import stopping
from schemas.errors import OperatorError

stopping.STOP_SECS_MAX = 0.5


class Part(StatefulSourcePartition):
    def __init__(self, way):
        self.way = way

    @stopping.speaking
    def next_batch(self):
        if self.way == "step":
            return ["an item"]
        if self.way == "warns":
            logging.getLogger("ionwax").warning("the database is away")
        if self.way in ("next", "warns"):
            raise OperatorError("the topic is gone; make it again")
        print("running", flush=True)
        while self.way == "stuck":
            pass
        if stopping.requested():
            print("drained", flush=True)
            raise StopIteration
        return []

    @stopping.speaking
    def snapshot(self):
        return {}["a fault"] if self.way == "fault" else None


class Source(FixedPartitionedSource):
    def __init__(self, way):
        self.way = way

    def list_parts(self):
        return ["0", "1"]  # one for each process of a cluster

    @stopping.speaking
    def build_part(self, step_id, for_part, resume_state):
        if self.way == "build":
            raise OperatorError("the topic is gone; make it again")
        return Part(self.way)


@stopping.speaking
def step(items):
    for item in items:
        raise OperatorError("the topic is gone; make it again")
        yield item


@stopping.one_message
def flow(way):
    if way == "flow":
        raise OperatorError("the topic is gone; make it again")
    made = Dataflow("stopping")
    op.output("out", op.flat_map_batch("step", op.input("in", made, Source(way)), step), TestingSink([]))
    return made
"""


def start(folder: Path, way: str, *options: str) -> "subprocess.Popen[str]":
    (folder / "stopping_flow.py").write_text(FLOW)
    return subprocess.Popen(
        [sys.executable, "-m", "bytewax.run", f"stopping_flow:flow('{way}')", "-s", "1", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("way", ["flow", "build", "next", "step"])
def test_an_operators_error_is_one_line_and_a_status(tmp_path: Path, way: str) -> None:
    """Wherever it happens, in a step that is a generator, too: not a Rust backtrace around a Python one."""
    process = start(tmp_path, way)
    _, said = process.communicate(timeout=DEADLINE_SECS)
    assert said == "ionwax: the topic is gone; make it again\n"
    assert process.returncode == stopping.EXIT_OPERATOR


def test_a_fault_is_its_traceback_and_a_status(tmp_path: Path) -> None:
    """In a snapshot the engine would abort, and show a backtrace of its own without the line at fault."""
    process = start(tmp_path, "fault")
    _, said = process.communicate(timeout=DEADLINE_SECS)
    assert said.startswith("Traceback")
    assert said.endswith("KeyError: 'a fault'\n")
    assert "panicked" not in said
    assert process.returncode == stopping.EXIT_FAULT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_sources_drain(tmp_path: Path, number: int) -> None:
    """The engine by itself dies at once on one and abruptly on the other."""
    process = start(tmp_path, "calm")
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    out, said = process.communicate(timeout=DEADLINE_SECS)
    assert out.endswith("drained\n")
    assert (process.returncode, said) == (0, "")


def test_a_process_that_cannot_drain_ends_all_the_same(tmp_path: Path) -> None:
    """A frozen server holds a call for ever; whoever stopped the process is not to wait for it."""
    process = start(tmp_path, "stuck")
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=DEADLINE_SECS)
    assert "Nothing is half-written" in said
    assert process.returncode == stopping.EXIT_STUCK


def test_a_process_that_nobody_listens_to_ends_all_the_same(tmp_path: Path) -> None:
    """Its supervisor was killed: what it says goes nowhere, and it must not go on for that."""
    process = start(tmp_path, "stuck")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "running\n"
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_SECS) == stopping.EXIT_STUCK


def test_a_process_whose_cluster_is_gone_says_so_in_one_line(tmp_path: Path) -> None:
    """The engine panics there, with a traceback that names no cause."""
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    killed, left = (start(tmp_path, "calm", "-i", str(i), "-a", addresses) for i in range(2))
    for process in (killed, left):
        assert process.stdout is not None
        assert "running\n" in process.stdout  # behind how it tried to reach one that had not begun yet
    killed.kill()
    killed.communicate()
    _, said = left.communicate(timeout=DEADLINE_SECS)
    assert said.startswith("ionwax: another process of this cluster ended")
    assert len(said.splitlines()) == 1
    assert left.returncode == stopping.EXIT_STUCK


def test_each_line_of_the_log_begins_with_its_time(tmp_path: Path) -> None:
    """In UTC, as the database and the brokers tell theirs."""
    process = start(tmp_path, "warns")
    _, said = process.communicate(timeout=DEADLINE_SECS)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ the database is away\nionwax: the topic is gone", said)


def test_in_a_test_or_a_notebook_the_error_is_raised() -> None:
    """Only a process that was made for a dataflow is ended."""

    @stopping.speaking
    def call() -> None:
        raise FencedOff("claimed by another")

    with pytest.raises(OperatorError, match="claimed by another"):
        call()
