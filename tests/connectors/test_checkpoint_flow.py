"""The protocol in the real engine: each partition on one worker, committed to a real database."""

import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta

import bytewax.operators as op
import psycopg
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main, run_main

from connectors import stopping
from connectors.resuming import ResumingSource
from connectors.sealing import SealingSink
from connectors.timescale_connection import Connection
from schemas.log import LogBatch
from schemas.progress import Claim, Counts, Progress
from tests.connectors.kept_log import KeptLog
from tests.connectors.timescale_tables import rows, store

pytestmark = pytest.mark.embedded


@dataclass(frozen=True)
class Accounted:
    """The least that can be sealed: one row an offset."""

    progress: Progress
    counts: Counts
    offsets: range


class Rows:
    """Writes each offset as a late reading: any table would do, this one refuses no repetition by itself."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    def has_rows(self, item: Accounted) -> bool:
        return bool(item.offsets)

    def write(self, transaction: Connection, items: list[Accounted], counts: Counts) -> Counts:
        for item in items:
            for offset in item.offsets:
                transaction.execute(
                    "insert into seen (partition, place, worker) values (%s, %s, %s)",
                    [self.claim.partition, offset, threading.get_ident()],
                )
        return counts

    def flush(self) -> None:
        pass


class Step:
    """Holds each partition's progress, as a core does, made from the claim."""

    def __init__(self) -> None:
        self.at: dict[int, Progress] = {}

    def __call__(self, items: list[Claim | LogBatch]) -> list[tuple[str, Claim | Accounted]]:
        answers: list[tuple[str, Claim | Accounted]] = []
        for item in items:
            if isinstance(item, Claim):
                self.at[item.partition] = item.progress
                answers.append((str(item.partition), item))
                continue
            before = self.at[item.partition]
            after = replace(before, position=item.end, resume=item.end, anchor=item.anchor or before.anchor)
            self.at[item.partition] = after
            counts = Counts(messages=len(item.offsets))
            answers.append((str(item.partition), Accounted(after, counts, range(item.start, item.end))))
        return answers


def flow(
    log: KeptLog, conninfo: str, share: str = "0/1", settle_secs: float = 10.0, every_secs: float = 10.0
) -> Dataflow:
    keeping = store(conninfo, output="seen", shape="offsets")
    source = ResumingSource(log, keeping, share=share, settle_secs=settle_secs)
    sink = SealingSink(keeping, source.list_parts, Rows, progress_every_secs=every_secs)
    made = Dataflow("seen")
    stream = op.flat_map_batch("account", op.input("log", made, source), Step())
    op.output("seal", stream, sink)
    return made


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
        stop_when.join(30)
        stopping.forget()


def _stop_when(conninfo: str, until: str) -> None:
    deadline = time.monotonic() + 20
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while time.monotonic() < deadline and not connection.execute(until.encode()).fetchone()[0]:
            time.sleep(0.01)
    stopping.request()


@pytest.fixture
def seen_url(migrated_url: str) -> str:
    with psycopg.connect(migrated_url) as connection:
        connection.execute("create table seen (partition int, place bigint, worker bigint)")
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
