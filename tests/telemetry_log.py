"""A log of readings made by hand: which are late, and which are copies, is certain.

Append times are the test's own, and a tick of the only ingest worker closes a minute before what shall be late.
"""

import time
from dataclasses import dataclass, field

from confluent_kafka import Producer

from schemas.telemetry_pb2 import Telemetry
from tests.topology import Topology

MINUTE_MS = 60_000
BEGAN_MINS_AGO = 30  # a log stamped long ago would be deleted by retention while it is read
DEVICES = ("boiler-7", "kettle", "🌡")
METRICS = {"temperature": 21.5, "running": 1.0, "level": -0.0}


@dataclass
class Log:
    """Appends to raw.events, with append times of its own."""

    flows: Topology
    now_ms: int = field(default_factory=lambda: (int(time.time()) // 60 - BEGAN_MINS_AGO) * MINUTE_MS)

    def __post_init__(self) -> None:
        self.producer = Producer(
            {"bootstrap.servers": self.flows.settings.kafka.bootstrap_servers, "partitioner": "murmur2_random"}
        )

    def say(self, device: str, event_ms: int, metrics: dict[str, float], times: int = 1) -> None:
        value = Telemetry(device_id=device, ts=event_ms, metrics=metrics).SerializeToString()
        for _ in range(times):
            self.producer.produce(self.flows.settings.kafka.events_topic, value, device.encode(), timestamp=self.now_ms)

    def refuse(self, device: str) -> None:
        """A record that nobody can read."""
        self.producer.produce(
            self.flows.settings.kafka.events_topic, b"\xff\xff\xff", device.encode(), timestamp=self.now_ms
        )

    def tick(self) -> None:
        """Of the only ingest worker, to every partition."""
        value = Telemetry(ts=self.now_ms).SerializeToString()
        worker = self.flows.settings.mqtt.workers[0].encode()
        for partition in range(self.flows.settings.kafka.partitions):
            self.producer.produce(
                self.flows.settings.kafka.events_topic,
                value,
                None,
                partition,
                timestamp=self.now_ms,
                headers=[("tick", b""), ("ingest-node-id", worker)],
            )

    def minute(self, copies: int = 0, new_late: int = 0) -> None:
        """A minute of readings, its end, and afterwards copies of its readings and ones that were never sent."""
        start = self.now_ms
        for second in range(0, 60, 5):
            for device in DEVICES:
                self.say(device, start + second * 1000, METRICS, times=1 + (second == 20))
        self.refuse(DEVICES[0])
        self.now_ms = start + MINUTE_MS + 15_000
        self.tick()
        for i in range(copies):
            self.say(DEVICES[i % 3], start + 5_000 * (i % 12), METRICS)
        for i in range(new_late):
            self.say(DEVICES[i % 3], start + 5_000 * i + 1, METRICS, times=2)
        self.now_ms = start + MINUTE_MS

    def flush(self) -> None:
        assert self.producer.flush(60) == 0
