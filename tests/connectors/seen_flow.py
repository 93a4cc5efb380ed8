"""The least dataflow that checkpoints: each offset of a log in memory becomes a row, and a repetition would show.

As a process of its own: ``python -m tests.connectors.seen_flow CONNINFO RECORDS`` reads three partitions of so many
records.
"""

import sys
import threading
from dataclasses import dataclass, replace
from datetime import timedelta

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

from connectors.resuming import ResumingSource
from connectors.sealing import SealingSink
from connectors.stopping import one_message
from connectors.timescale_connection import Connection
from schemas.log import LogBatch
from schemas.progress import Claim, Counts, Progress
from tests.connectors.kept_log import KeptLog
from tests.connectors.timescale_tables import store

TABLE = "create table seen (partition int, place bigint, worker bigint)"
PARTITIONS = 3


@dataclass(frozen=True)
class Accounted:
    """The least that can be sealed: one row an offset."""

    progress: Progress
    counts: Counts
    offsets: range


class Rows:
    """Writes each offset as a row of a table without a key: it refuses no repetition by itself."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    def has_rows(self, item: Accounted) -> bool:
        return bool(item.offsets)

    def write(self, transaction: Connection, items: list[Accounted], counts: Counts) -> Counts:
        for item in items:
            transaction.execute(
                "insert into seen (partition, place, worker) select %s, generate_series(%s::bigint, %s::bigint), %s",
                [self.claim.partition, item.offsets.start, item.offsets.stop - 1, threading.get_ident()],
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
    source = ResumingSource(log, keeping, share=share, settle_secs=[settle_secs])
    sink = SealingSink(keeping, source.list_parts, Rows, progress_every_secs=every_secs, check=source.check)
    made = Dataflow("seen")
    stream = op.flat_map_batch("account", op.input("log", made, source), Step())
    op.output("seal", stream, sink)
    return made


@one_message
def flow_of_a_process(conninfo: str, records: int) -> Dataflow:
    log = KeptLog("raw.events", [records] * PARTITIONS)
    log.batch_max = 17
    return flow(log, conninfo)


if __name__ == "__main__":
    cli_main(flow_of_a_process(sys.argv[1], int(sys.argv[2])), epoch_interval=timedelta(milliseconds=10))
