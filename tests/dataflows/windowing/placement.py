"""A dataflow over four partitions in memory, for placing: ``minute_rollups`` between a source and a sink of its own.

Each partition's log is made from its number, so that every process makes the same one. Batches are cut differently in
each run, and the partitions are read at very different speeds: one in small batches, one not at all for a good while.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from dataflows.minute_rollups import build
from schemas.log import LogBatch, Outcome
from schemas.progress import Claim, Progress
from schemas.settings import MqttSettings, Settings
from tests.dataflows.windowing.engine import encoded
from tests.dataflows.windowing.fleets import Fleet
from tests.dataflows.windowing.replay import bits
from tests.oracles import Tick

PARTITIONS = 4
CLIENT = "ingest"
PAUSED = 200  # calls for which one partition gives nothing


def fleet(partition: int) -> Fleet:
    return Fleet(devices=12, wrong=4, every_ms=4_000, speeds=(20.0,), tail_ms=60_000, seed=partition)


def batches(partition: int, seed: int) -> Iterator[LogBatch]:
    """A partition's log, encoded, in batches that the seed decides."""
    records = fleet(partition).records()
    random, low = Random(seed), 0
    while low < len(records):
        high = low + random.randint(1, 40 if partition == 1 else 900)
        some = records[low:high]
        ticks = {
            i: (("tick", b"1"), ("ingest-node-id", r.worker.encode()))
            for i, r in enumerate(some)
            if isinstance(r, Tick)
        }
        yield LogBatch(
            topic="raw.events",
            partition=partition,
            start=low,
            end=low + len(some),
            offsets=[record.offset for record in some],
            append_times=[record.append for record in some],
            values=[encoded(record, f"{partition}-") for record in some],
            headers=ticks,
        )
        low += len(some)


class Logs(FixedPartitionedSource[Any, None]):
    """The partitions of a share "i/n", each first its claim."""

    def __init__(self, share: str, seed: int) -> None:
        first, of = map(int, share.split("/"))
        self._parts, self._seed = [str(p) for p in range(PARTITIONS) if p % of == first], seed

    def list_parts(self) -> list[str]:
        return self._parts

    def build_part(self, _step_id: str, for_part: str, _resume_state: None) -> "_Log":
        return _Log(int(for_part), self._seed)


class _Log(StatefulSourcePartition[Any, None]):
    def __init__(self, partition: int, seed: int) -> None:
        claim = Claim("minute_rollups", "raw.events", partition, 1, "id", Progress.begin(0))
        self._items = iter([claim, *batches(partition, seed)])
        self._paused = PAUSED if partition == 2 else 0

    def next_batch(self) -> list[Any]:
        if self._paused:
            self._paused -= 1
            return []
        return [next(self._items)]

    def snapshot(self) -> None:
        return None


class Files(FixedPartitionedSink[Any, None]):
    """One file a partition; it must not exist yet, for one worker and no other writes it."""

    def __init__(self, folder: Path, parts: list[str]) -> None:
        self._folder, self._parts = folder, parts

    def list_parts(self) -> list[str]:
        return self._parts

    def part_fn(self, item_key: str) -> int:
        return self._parts.index(item_key)

    def build_part(self, _step_id: str, for_part: str, _resume_state: None) -> "_File":
        return _File(self._folder / f"{for_part}.jsonl")


class _File(StatefulSinkPartition[Any, None]):
    def __init__(self, path: Path) -> None:
        self._file = path.open("x")

    def write_batch(self, values: list[Claim | Outcome]) -> None:
        for outcome in values:
            if isinstance(outcome, Outcome):
                self._write("row", outcome.rollups.iter_rows())
                self._write("late", outcome.late.iter_rows())
        self._file.flush()

    def _write(self, kind: str, rows: Iterator[tuple[Any, ...]]) -> None:
        for row in rows:
            plain = [value.hex() if isinstance(value := bits(cell), bytes) else value for cell in row]
            self._file.write(json.dumps([kind, *plain]) + "\n")

    def snapshot(self) -> None:
        return None

    def close(self) -> None:
        self._file.close()


def flow(folder: str, share: str, seed: int) -> Dataflow:
    settings = Settings(mqtt=MqttSettings(client_id=CLIENT))
    source = Logs(share, seed)
    return build(source, Files(Path(folder), source.list_parts()), settings)
