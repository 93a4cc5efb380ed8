"""``minute_rollups`` on Bytewax in this process, between logs in memory and lists: some milliseconds a run.

Each partition is a list of what its source hands out, one entry a call: a claim, batches, and None for a pause.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import cluster_main

from dataflows.minute_rollups import build
from schemas.log import LogBatch, Outcome
from schemas.progress import Claim, Progress
from schemas.settings import MqttSettings, Settings
from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.windowing.replay import settings_of
from tests.oracles import Bad, Message, Record, Rules, Tick
from tests.strategies import Log

Given = Mapping[str, Sequence[Claim | LogBatch | None]]
POISON = b"\xff"


def run(rules: Rules, given: Given, workers: int) -> dict[str, list[Outcome]]:
    """The outcomes of each partition, in order, where so many worker threads share the partitions."""
    mqtt = MqttSettings(client_id="ingest", clients=max(len(rules.workers), 1))
    kept: dict[str, list[Outcome]] = {partition: [] for partition in given}
    flow: Dataflow = build(_Logs(given), _Lists(kept), Settings(mqtt=mqtt, windows=settings_of(rules)))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    return kept


def claim(partition: str, log: Log) -> Claim:
    return Claim("minute_rollups", "raw.events", int(partition), 1, "id", Progress.begin(log.start))


def batch_of(partition: str, log: Log, low: int, high: int) -> LogBatch:
    """[low, high) of a log, as the source reads it."""
    records = [record for record in log.records if low <= record.offset < high]
    return LogBatch(
        topic="raw.events",
        partition=int(partition),
        start=low,
        end=high,
        offsets=[record.offset for record in records],
        append_times=[record.append for record in records],
        values=[encoded(record) for record in records],
        headers={
            i: (("tick", b"1"), ("ingest-node-id", record.worker.encode()))
            for i, record in enumerate(records)
            if isinstance(record, Tick)
        },
    )


def encoded(record: Record, prefix: str = "") -> bytes:
    """What a record holds."""
    if isinstance(record, Bad):
        return POISON
    if isinstance(record, Tick):
        return Telemetry(ts=record.ts).SerializeToString()
    assert isinstance(record, Message)
    metrics = dict(record.readings)
    return Telemetry(device_id=prefix + record.device, ts=record.event, metrics=metrics).SerializeToString()


class _Logs(FixedPartitionedSource[Any, None]):
    def __init__(self, given: Given) -> None:
        self._given = given

    def list_parts(self) -> list[str]:
        return list(self._given)

    def build_part(self, _step_id: str, for_part: str, _resume_state: None) -> "_Log":
        return _Log(self._given[for_part])


class _Log(StatefulSourcePartition[Any, None]):
    def __init__(self, items: Sequence[Claim | LogBatch | None]) -> None:
        self._items = iter(items)

    def next_batch(self) -> list[Any]:
        return [] if (item := next(self._items)) is None else [item]

    def snapshot(self) -> None:
        return None


class _Lists(FixedPartitionedSink[Any, None]):
    def __init__(self, kept: dict[str, list[Outcome]]) -> None:
        self._kept = kept

    def list_parts(self) -> list[str]:
        return list(self._kept)

    def part_fn(self, item_key: str) -> int:
        return list(self._kept).index(item_key)

    def build_part(self, _step_id: str, for_part: str, _resume_state: None) -> "_List":
        return _List(self._kept[for_part])


class _List(StatefulSinkPartition[Any, None]):
    def __init__(self, kept: list[Outcome]) -> None:
        self._kept = kept

    def write_batch(self, values: list[Claim | Outcome]) -> None:
        self._kept += [value for value in values if isinstance(value, Outcome)]

    def snapshot(self) -> None:
        return None
