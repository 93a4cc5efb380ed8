"""An MQTT source and a durable sink in a process of their own, to be killed: ``python -m … URL CLIENT_ID FILTER FILE``.

The sink appends a line a message and a line a tick to FILE; a line counts as durable once an epoch's flush has synced
it. The flush is slow, so that a kill is likely to fall between what was handed out and what is durable.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import run_main

from connectors import stopping
from connectors.mqtt import MqttSource
from schemas.arrivals import Arrivals, Tick
from schemas.settings import MqttSettings

FLUSH_SECS = 0.05


class FileSink(FixedPartitionedSink[Arrivals | Tick, None]):
    def __init__(self, worker: str, path: Path) -> None:
        self._worker = worker
        self._path = path

    def list_parts(self) -> list[str]:
        return [self._worker]

    def build_part(self, _step_id: str, _for_part: str, _resume_state: None) -> "FilePart":
        return FilePart(self._path)


class FilePart(StatefulSinkPartition[Arrivals | Tick, None]):
    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._lines: list[bytes] = []

    def write_batch(self, values: list[Arrivals | Tick]) -> None:
        for value in values:
            self._lines += [b"tick\n"] if isinstance(value, Tick) else [payload + b"\n" for payload in value.payloads]

    def snapshot(self) -> None:
        time.sleep(FLUSH_SECS)
        self._file.write(b"".join(self._lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._lines = []


def main(url: str, client_id: str, topic_filter: str, path: str) -> None:
    stopping.on_signals()
    settings = MqttSettings(url=url, client_id=client_id, tick_secs=0.1, session_expiry_secs=600)
    flow = Dataflow("mqtt_process")
    arrivals = op.input("mqtt", flow, MqttSource(settings, topic_filter))
    keyed = op.key_on("worker", arrivals, lambda item: item.worker)
    op.output("file", keyed, FileSink(settings.workers[0], Path(path)))
    run_main(flow, epoch_interval=timedelta(milliseconds=20))


if __name__ == "__main__":
    main(*sys.argv[1:])
