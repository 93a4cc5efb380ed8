"""A topic filled for measuring: messages as ingest writes them, and a tick at the end that closes every window."""

import time
from typing import Final

import polars as pl
from confluent_kafka import Producer

from connectors import kafka_topics
from dataflows.decoding.telemetry import TelemetryEncoder
from infra.bench.windows_logs import BASE_MS, Fleet
from schemas.settings import Settings

POLL_EVERY: Final = 10_000
BEHIND_MS: Final = 3_600_000  # the log begins this long ago: old enough to be closed, too young to be deleted


def fill(settings: Settings, fleet: Fleet) -> int:
    """Make the topics, produce the fleet's messages and a tick a partition; answers with the records produced."""
    kafka_topics.ensure(settings)
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "compression.type": "zstd",
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "batch.num.messages": 10_000,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 500_000,
            "enable.idempotence": True,
        }
    )
    shift = time.time_ns() // 1_000_000 - BEHIND_MS - BASE_MS
    frame = fleet.frame().with_columns(pl.col("append_time", "event_time") + shift)
    topic, encode = settings.kafka.events_topic, TelemetryEncoder().encode
    columns = frame.select("append_time", "event_time", "device_id", "metric", "value")
    for number, (append, event, device, metrics, values) in enumerate(columns.iter_rows()):
        key = device.encode()
        _produce(
            producer, topic, encode(key, event, dict(zip(metrics, values, strict=True))), key=key, timestamp=append
        )
        if number % POLL_EVERY == 0:
            producer.poll(0)
    after = BASE_MS + shift + (fleet.minutes + 10) * 60_000
    for partition in range(settings.kafka.partitions):
        headers = [("tick", b"1"), ("ingest-node-id", settings.mqtt.workers[0].encode())]
        value = encode(b"", after, {})
        _produce(producer, topic, value, partition=partition, timestamp=after, headers=headers)
    left = producer.flush(120)
    assert not left, f"{left} records were not delivered"
    return len(frame) + settings.kafka.partitions


def _produce(producer: Producer, topic: str, value: bytes, **properties: object) -> None:
    while True:
        try:
            producer.produce(topic, value, **properties)
            return
        except BufferError:
            producer.poll(0.1)
