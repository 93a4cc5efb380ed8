"""Ticks: records by which an ingest worker says that everything it received before ``ts`` is in the log.

An empty ``Telemetry`` with ``ts``, a null key, headers ``tick`` and ``ingest-node-id``; one to every partition.
"""

from collections.abc import Iterator

from dataflows.decoding.telemetry import TelemetryEncoder
from schemas.arrivals import Tick
from schemas.log import Headers
from schemas.record import Record

TICK = "tick"
INGEST_NODE_ID = "ingest-node-id"


def tick_records(tick: Tick, topic: str, partitions: int) -> Iterator[Record]:
    """The records of ``tick``, one a partition. Kafka's time of each is the tick's own."""
    value = TelemetryEncoder().encode(b"", tick.ts, {})
    headers = ((TICK, b"1"), (INGEST_NODE_ID, tick.worker.encode()))
    for partition in range(partitions):
        yield Record(topic, value, None, headers, partition, tick.ts)


def ticking_worker(headers: Headers) -> str | None:
    """The ingest worker of a record with these headers; None where it is no tick, "" where the tick does not say."""
    named = dict(headers)
    if TICK not in named:
        return None
    return (named.get(INGEST_NODE_ID) or b"").decode(errors="replace")
