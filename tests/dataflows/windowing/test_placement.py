"""Law 8: wherever partitions are worked on, and however unevenly they are read, the table is the same.

Any logs, on Bytewax's threads, against the oracle; and one log in real processes: one worker, three workers, two
independent processes, and a cluster of two processes.
"""

import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.decoding.times import TIME_MAX_MS, TIME_MIN_MS
from schemas.log import LogBatch
from schemas.progress import Claim
from tests.dataflows.windowing import engine, laws
from tests.dataflows.windowing.budget import examples
from tests.dataflows.windowing.placement import PARTITIONS
from tests.oracles import Bad, Message, Record, Rules, Tick
from tests.strategies import WORKERS, Log, cuts, logs, rules

RUN_SECS_MAX = 120
FLOW = "tests.dataflows.windowing.placement:flow({folder!r}, {share!r}, {seed})"


def readable(record: Record) -> Record:
    """The record, or where no decoder takes its time for one, the refusal that it becomes."""
    time = record.event if isinstance(record, Message) else record.ts if isinstance(record, Tick) else 0
    no_time = isinstance(record, Tick) and not time  # in protobuf a time of 0 is none
    return record if TIME_MIN_MS <= time <= TIME_MAX_MS and not no_time else Bad(record.offset, record.append)


@st.composite
def paces(draw: st.DrawFn, partition: str, log: Log) -> list[Claim | LogBatch | None]:
    """A claim, and the log in batches, with pauses before any of them, long ones among them."""
    edges = [log.start, *draw(cuts(log, 4)), log.end]
    given: list[Claim | LogBatch | None] = [engine.claim(partition, log)]
    for low, high in pairwise(edges):
        given += [None] * draw(st.sampled_from((0, 0, 1, 30)))
        given.append(engine.batch_of(partition, log, low, high))
    return given


@st.composite
def placements(draw: st.DrawFn) -> tuple[Rules, dict[str, Log], engine.Given, engine.Given, int]:
    """Logs of up to three partitions, two ways to cut and pace them, and a number of workers."""
    limits = draw(st.one_of(rules(workers=WORKERS[:1]), rules(workers=WORKERS)))
    partitions = {str(i): draw(logs(limits, 15)) for i in range(draw(st.integers(1, 3)))}
    partitions = {p: Log(tuple(map(readable, log.records)), log.start, log.end) for p, log in partitions.items()}
    ways = [{p: draw(paces(p, log)) for p, log in partitions.items()} for _ in range(2)]
    return limits, partitions, *ways, draw(st.integers(2, 4))


@given(placements())
@examples(100)
def test_placement_and_pace_are_invisible(case):
    """One worker, or several that share the partitions, cut and paced otherwise: the oracle's answers, to the bit."""
    laws.placement_is_invisible(*case)


def start(folder: Path, share: str, seed: int, *arguments: str) -> subprocess.Popen[str]:
    flow = FLOW.format(folder=str(folder), share=share, seed=seed)
    command = [sys.executable, "-m", "bytewax.run", flow, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes: subprocess.Popen[str]) -> None:
    try:
        for process in processes:
            output, _ = process.communicate(timeout=RUN_SECS_MAX)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def table(folder: Path) -> list[list[str]]:
    return [sorted((folder / f"{partition}.jsonl").read_text().splitlines()) for partition in range(PARTITIONS)]


@pytest.fixture(scope="module")
def of_one_worker(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The table that a single worker makes."""
    folder = tmp_path_factory.mktemp("one")
    finish(start(folder, "0/1", 1))
    return table(folder)


def test_one_worker_writes_rows_of_every_partition(of_one_worker: list[list[str]]):
    """The comparison is not of nothing: hundreds of rows in each partition, and late readings somewhere."""
    assert all(len(lines) > 100 for lines in of_one_worker)
    assert any(line.startswith('["late"') for lines in of_one_worker for line in lines)


def test_three_workers_make_the_same_table(of_one_worker: list[list[str]], tmp_path: Path):
    """Threads of one process, and batches cut elsewhere."""
    finish(start(tmp_path, "0/1", 2, "-w", "3"))
    assert table(tmp_path) == of_one_worker


def test_two_independent_processes_make_the_same_table(of_one_worker: list[list[str]], tmp_path: Path):
    """Each with half the partitions."""
    finish(start(tmp_path, "0/2", 3), start(tmp_path, "1/2", 4))
    assert table(tmp_path) == of_one_worker


def test_a_cluster_of_two_processes_makes_the_same_table(of_one_worker: list[list[str]], tmp_path: Path):
    """Bytewax spreads the partitions over both."""
    addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(2))
    finish(*(start(tmp_path, "0/1", 5, "-i", str(i), "-a", addresses) for i in (0, 1)))
    assert table(tmp_path) == of_one_worker
