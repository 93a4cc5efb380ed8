"""Law 8: wherever partitions are worked on, and however unevenly they are read, the table is the same.

Real Bytewax processes: one worker, three workers, two independent processes, and a cluster of two processes.
"""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dataflows.windowing.placement import PARTITIONS

RUN_SECS_MAX = 120
FLOW = "tests.dataflows.windowing.placement:flow({folder!r}, {share!r}, {seed})"


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
