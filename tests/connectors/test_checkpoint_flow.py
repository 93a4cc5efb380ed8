"""The protocol in the real engine: each partition on one worker, committed to a real database."""

import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main, run_main

from connectors import stopping
from infra.embedded.postgres import PostgresServer
from tests.connectors.kept_log import KeptLog
from tests.connectors.seen_flow import PARTITIONS, TABLE, flow
from tests.connectors.timescale_tables import migrated, rows

pytestmark = pytest.mark.embedded


def run(made: Dataflow, conninfo: str, until: str, workers: int = 0) -> None:
    """Run in this process until the query answers true; then stop as SIGTERM does."""
    stop_when = threading.Thread(target=_stop_when, args=(conninfo, until), daemon=True)
    stop_when.start()
    try:
        if workers:
            cluster_main(made, [], 0, epoch_interval=timedelta(milliseconds=50), worker_count_per_proc=workers)
        else:
            run_main(made, epoch_interval=timedelta(milliseconds=50))
    finally:
        stop_when.join(100)
        stopping.forget()


def _stop_when(conninfo: str, until: str) -> None:
    deadline = time.monotonic() + 90
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while time.monotonic() < deadline and not connection.execute(until.encode()).fetchone()[0]:
            time.sleep(0.01)
    stopping.request()


@pytest.fixture
def seen_url(migrated_url: str) -> str:
    with psycopg.connect(migrated_url) as connection:
        connection.execute(TABLE)
    return migrated_url


def all_seen(log: KeptLog) -> str:
    return f"select count(*) >= {sum(log.lengths)} from seen"


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_every_offset_is_written_once_whatever_the_workers(seen_url: str, workers: int) -> None:
    """Twelve partitions ("10" sorts before "2"): each offset once, each partition on one worker."""
    log = KeptLog("raw.events", [5 + p for p in range(12)])
    run(flow(log, seen_url), seen_url, all_seen(log), workers)
    assert rows(seen_url, "select partition, place from seen") == sorted(
        ((p, o) for p in range(12) for o in range(5 + p)), key=repr
    )
    assert rows(seen_url, "select count(distinct worker) from seen group by partition") == [(1,)] * 12
    assert rows(seen_url, "select partition, position, generation from progress") == sorted(
        ((p, 5 + p, 1) for p in range(12)), key=repr
    )
    assert all(reader.closed for reader in log.readers)


def test_a_second_run_goes_on_where_the_first_stopped(seen_url: str) -> None:
    """Nothing again, nothing left out, with another number of workers and in shares."""
    log = KeptLog("raw.events", [4, 9])
    run(flow(log, seen_url), seen_url, all_seen(log), 2)
    log.lengths = [8, 12]
    for share in ("0/2", "1/2"):
        mine = int(share[0])
        until = f"select count(*) >= {log.lengths[mine]} from seen where partition = {mine}"
        run(flow(log, seen_url, share=share), seen_url, until)
    assert rows(seen_url, "select partition, place from seen") == sorted(
        ((p, o) for p, length in enumerate(log.lengths) for o in range(length)), key=repr
    )
    assert rows(seen_url, "select generation, position from progress") == [(2, 12), (2, 8)]


RECORDS = 4_000
ENDLESS = 10**12


@contextmanager
def process(conninfo: str, records: int = RECORDS) -> Iterator[subprocess.Popen[str]]:
    """The dataflow as a process of its own; killed at the end, if it still runs."""
    command = [sys.executable, "-m", "tests.connectors.seen_flow", conninfo, str(records)]
    started = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def wait_for_rows(conninfo: str, count: int) -> None:
    deadline = time.monotonic() + 60
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while connection.execute("select count(*) from seen").fetchone() < (count,):
            assert time.monotonic() < deadline
            time.sleep(0.002)


def assert_each_once(conninfo: str) -> None:
    """Every offset below ``position`` is there, none twice, none beyond."""
    per_partition = "select partition, count(*), count(distinct place), min(place), max(place) + 1 from seen group by 1"
    positions = rows(conninfo, "select partition, position, position, 0, position from progress")
    assert rows(conninfo, per_partition) == positions


def test_killed_at_any_moment_it_writes_each_offset_once(seen_url: str) -> None:
    """kill -9 at random, and once more, and again: nothing is lost, nothing is there twice."""
    chance = random.Random(3)
    for _ in range(4):
        with process(seen_url):
            already = rows(seen_url, "select count(*) from seen")[0][0]
            wait_for_rows(seen_url, already + chance.randrange(1, PARTITIONS * RECORDS // 6))
    with process(seen_url) as last:
        wait_for_rows(seen_url, PARTITIONS * RECORDS)
        last.send_signal(signal.SIGTERM)
        assert last.wait(30) == 0
    assert_each_once(seen_url)
    assert rows(seen_url, "select generation, position from progress") == [(5, RECORDS)] * PARTITIONS
    assert rows(seen_url, "select messages from ledger") == [(RECORDS,)] * PARTITIONS


def test_a_second_copy_started_by_mistake_stops_the_first(seen_url: str) -> None:
    """The first says why in one message and ends; the second goes on; each offset is there once."""
    with process(seen_url, ENDLESS) as first:
        wait_for_rows(seen_url, 1)
        with process(seen_url, ENDLESS) as second:
            assert first.wait(30) == stopping.EXIT_OPERATOR
            said = first.stderr.read()
            assert "claimed by another process of flow minute_rollups" in said
            assert "Traceback" not in said
            wait_for_rows(seen_url, 1 + rows(seen_url, "select count(*) from seen")[0][0])
            second.send_signal(signal.SIGTERM)
            assert second.wait(30) == 0
    assert_each_once(seen_url)


@pytest.fixture
def mortal_url(postgres: PostgresServer) -> Iterator[str]:
    """A database of a server that the test may kill, whatever DATABASE_URL says."""
    name = f"mortal_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo, autocommit=True) as admin:
        admin.execute(f"create database {name}".encode())
    conninfo = migrated(psycopg.conninfo.make_conninfo(postgres.conninfo, dbname=name))
    with psycopg.connect(conninfo) as connection:
        connection.execute(TABLE)
    yield conninfo
    with psycopg.connect(postgres.conninfo, autocommit=True) as admin:
        admin.execute(f"drop database {name} with (force)".encode())


def test_a_database_that_is_killed_and_comes_back_changes_nothing(postgres: PostgresServer, mortal_url: str) -> None:
    """Twice in the midst of writing: the process waits, finds out what became of its last commit, and goes on."""
    with process(mortal_url, ENDLESS) as writing:
        for _ in range(2):
            wait_for_rows(mortal_url, 1 + rows(mortal_url, "select count(*) from seen")[0][0])
            postgres.kill()
            postgres.start()
        wait_for_rows(mortal_url, 1 + rows(mortal_url, "select count(*) from seen")[0][0])
        writing.send_signal(signal.SIGTERM)
        assert writing.wait(30) == 0
        said = writing.stderr.read()
        assert "Nothing is lost; trying again" in said
        assert "The database is back" in said
    assert_each_once(mortal_url)
    assert rows(mortal_url, "select generation from progress") == [(1,)] * PARTITIONS
