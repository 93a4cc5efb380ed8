"""A topic filled for measuring, and what every row made of it must be, by a plain group by.

Records have ingest's key, value and compression, and its headers (``kafka.event_headers``) where that is asked for: a
client that reads them pays for them, wanted or not, and other systems' figures are of logs without.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl
from confluent_kafka import Producer

from dataflows.decoding.arrivals import SCHEMA_VERSION
from dataflows.decoding.telemetry import TelemetryEncoder
from infra.bench.windows_logs import BASE_MS, METRICS, Fleet
from schemas.settings import Settings

POLL_EVERY: Final = 10_000
CHUNK: Final = 500_000  # messages made at a time
BEHIND_MS: Final = 3_600_000  # the log begins this long ago: old enough to be closed, too young to be deleted
CENTRE: Final = 20.0  # squares are summed about it, or they would lose the variance
CLOSING: Final = b"closing"  # the device of messages without metrics that end the log for those that know no ticks
KEYS: Final = ("bucket", "device_id", "metric")


@dataclass(frozen=True)
class Filled:
    """A topic: its records, and the rows that they make (KEYS, count, mean, m2, min, max)."""

    topic: str
    messages: int
    records: int
    rows: pl.DataFrame

    def difference(self, found: pl.DataFrame) -> str:
        """How ``found`` (the same columns) differs; "" where it does not."""
        if len(found) != found.n_unique(KEYS):
            return f"{len(found) - found.n_unique(KEYS):,} rows twice"
        both = self.rows.join(found, on=KEYS, how="full", suffix="_found", coalesce=True)
        missing = int(self.rows["count"].sum()) - int(found["count"].sum())
        if missing:
            return f"{missing:,} readings missing"
        near = pl.lit(True)
        for name, tolerance in (("count", 0.0), ("min", 0.0), ("max", 0.0), ("mean", 1e-12), ("m2", 1e-6)):
            off = (pl.col(name) - pl.col(f"{name}_found")).abs()
            near &= (off <= tolerance * (1 + pl.col(name).abs())).fill_null(False)
        wrong = both.select((~near).sum()).item()
        return f"{wrong:,} of {len(both):,} rows differ" if wrong else ""


def fill(settings: Settings, topic: str, fleet: Fleet, ticks: bool, headers: bool = False) -> Filled:
    """Produce the fleet's messages to a topic that exists, and what closes every window at its end."""
    producer = _producer(settings)
    now = time.time_ns() // 1_000_000
    shift = now - BEHIND_MS - BASE_MS
    rows, encode = [], TelemetryEncoder().encode
    node = settings.mqtt.workers[0].encode()
    for frame in _chunks(fleet, shift):
        for number, (append, event, device, metrics, values) in enumerate(frame.iter_rows()):
            key = device.encode()
            value = encode(key, event, dict(zip(metrics, values, strict=True)))
            more = [("device-id", key), ("schema-version", SCHEMA_VERSION), ("ingest-node-id", node)]
            _produce(producer, topic, value, key=key, timestamp=append, headers=more if headers else [])
            if number % POLL_EVERY == 0:
                producer.poll(0)
        rows = [_combined([*rows, _sums(frame)])]
    after = BASE_MS + shift + (fleet.minutes + 10) * 60_000
    for partition in range(settings.kafka.partitions):
        end: dict[str, object] = {"partition": partition, "timestamp": after}
        if ticks:
            tick = [("tick", b"1"), ("ingest-node-id", node)]
            _produce(producer, topic, encode(b"", after, {}), headers=tick, **end)
        else:
            _produce(producer, topic, encode(CLOSING, after, {}), key=CLOSING, **end)
    left = producer.flush(120)
    assert not left, f"{left} records were not delivered"
    return Filled(topic, fleet.messages, fleet.messages + settings.kafka.partitions, _finished(rows[0]))


def _chunks(fleet: Fleet, shift: int) -> Iterator[pl.DataFrame]:
    for low in range(0, fleet.messages, CHUNK):
        frame = fleet.between(low, min(low + CHUNK, fleet.messages))
        times = pl.col("append_time", "event_time") + shift
        yield frame.with_columns(times).select("append_time", "event_time", "device_id", "metric", "value")


def _sums(frame: pl.DataFrame) -> pl.DataFrame:
    value, about = pl.col("value"), pl.col("value") - CENTRE
    return (
        frame.select(bucket=pl.col("event_time") // 60_000 * 60_000, device_id="device_id", value="value")
        .with_columns(pl.col("value").list.get(i).alias(name) for i, name in enumerate(METRICS))
        .drop("value")
        .unpivot(index=["bucket", "device_id"], variable_name="metric", value_name="value")
        .group_by(KEYS)
        .agg(count=pl.len().cast(pl.Int64), sum=about.sum(), squares=(about**2).sum(), min=value.min(), max=value.max())
    )


def _combined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    added, low, high = pl.col("count", "sum", "squares").sum(), pl.col("min").min(), pl.col("max").max()
    return pl.concat(parts).group_by(KEYS).agg(added, low, high)


def _finished(sums: pl.DataFrame) -> pl.DataFrame:
    about = pl.col("sum") / pl.col("count")
    m2 = (pl.col("squares") - pl.col("sum") * about).clip(0)
    return sums.select(*KEYS, "count", (about + CENTRE).alias("mean"), m2.alias("m2"), "min", "max")


def _producer(settings: Settings) -> Producer:
    return Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "log_level": 2,
            "compression.type": "zstd",
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "batch.num.messages": 10_000,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 500_000,
            "enable.idempotence": True,
        }
    )


def _produce(producer: Producer, topic: str, value: bytes, **properties: object) -> None:
    while True:
        try:
            producer.produce(topic, value, **properties)
            return
        except BufferError:
            producer.poll(0.1)
