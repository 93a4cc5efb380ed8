"""What a flow is given to write while one of its servers is away: as devices say it, or as it stands in the log.

Half of what the log is given is refused, so that a flow has dead letters to write at once, whatever its windows do.
"""

import json
import time
from collections.abc import Iterator

from connectors.kafka_sink import Publisher
from schemas.record import Record
from schemas.rollup_pb2 import Rollup
from schemas.settings import Settings
from schemas.telemetry_pb2 import Telemetry
from tests.connectors.mqtt_devices import Sent, publish

READINGS = 20
MINUTE_MS = 60_000
REFUSED = b"\xff"
RULES = "rules: [{name: high, detector: threshold, metrics: n, above: 1}]"


def give(settings: Settings, flow: str) -> None:
    """Give ``flow`` what it reads: over MQTT, telemetry in the log, or rollups of half an hour ago, all too high."""
    if flow == "ingest":
        now = time.time_ns() // 1_000_000
        topic = settings.mqtt.topic.format(device_id="d")
        bodies = [json.dumps({"ts": now + n, "metrics": {"n": n}}).encode() for n in range(READINGS)]
        publish(settings.mqtt.url, [Sent(topic, body) for body in bodies], client_id=f"{settings.mqtt.client_id}-d")
        return
    publisher = Publisher(settings.kafka)
    for record in _rollups(settings) if flow == "anomaly_flags" else _telemetry(settings):
        publisher.send(record)
    publisher.flush()


def begin(settings: Settings) -> None:
    """Give ``anomaly_flags`` the closing of a minute before all others: what has accounted for it works."""
    publisher = Publisher(settings.kafka)
    publisher.send(_closing(settings.output.topic, _first_bucket() - MINUTE_MS))
    publisher.flush()


def give_one(settings: Settings) -> None:
    """Give ``minute_rollups`` a reading whose window stays open: it has something to commit, and nothing to publish."""
    publisher = Publisher(settings.kafka)
    value = Telemetry(device_id="d", ts=time.time_ns() // 1_000_000, metrics={"n": 0}).SerializeToString()
    publisher.send(Record(settings.kafka.events_topic, value, b"d"))
    publisher.flush()


def _first_bucket() -> int:
    return time.time_ns() // 1_000_000 // MINUTE_MS * MINUTE_MS - 30 * MINUTE_MS


def _closing(topic: str, bucket: int) -> Record:
    value = Rollup(bucket=bucket, length_ms=MINUTE_MS).SerializeToString()
    return Record(topic, value, headers=(("closed", b"%d" % (bucket + MINUTE_MS)),), partition=0)


def _telemetry(settings: Settings) -> Iterator[Record]:
    now = time.time_ns() // 1_000_000
    for n in range(READINGS):
        value = Telemetry(device_id="d", ts=now + n, metrics={"n": n}).SerializeToString() if n % 2 else REFUSED
        yield Record(settings.kafka.events_topic, value, b"d")


def _rollups(settings: Settings) -> Iterator[Record]:
    topic = settings.output.topic
    first = _first_bucket()
    for bucket in range(first, first + READINGS // 2 * MINUTE_MS, MINUTE_MS):
        told = Rollup(
            bucket=bucket, length_ms=MINUTE_MS, device_id="d", metric="n", count=1, mean=9, min=9, max=9, first=9,
            last=9, first_ts=bucket, last_ts=bucket,
        )  # fmt: skip
        yield Record(topic, told.SerializeToString(), b"d", partition=0)
        yield Record(topic, REFUSED, b"d", partition=0)
        yield _closing(topic, bucket)
