"""The check from the far end: is everything that a fleet's record holds as acknowledged in the log or the dead letter?

A message is found in the log by device, time and metrics of its good readings; one that must be refused, in whole or in
part, by its bytes in the dead letter. What was sent and not acknowledged may be there or not, and is not asked for.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import Any

from google.protobuf.message import DecodeError

from dataflows.decoding.topics import compile_topic
from infra.fleet import record
from infra.verify.finding import Finding
from infra.verify.replay import Record, good_metrics
from schemas.settings import Settings
from schemas.telemetry_pb2 import Telemetry

Told = bytes
"""A message as it counts: a digest of device, time and readings."""


@dataclass(frozen=True, slots=True)
class Sums:
    """How many messages of the record were asked for, found in the log, and found in the dead letter."""

    acknowledged: int
    in_log: int
    in_dead_letter: int


class Heard:
    """What log and dead letter hold, as digests: 16 bytes a message."""

    def __init__(self, settings: Settings) -> None:
        self._metrics_max = settings.decoding.metrics_max
        self.messages: set[Told] = set()
        self.refused: set[bytes] = set()

    def in_log(self, records: Iterable[Record]) -> None:
        for one in records:
            try:
                message = Telemetry.FromString(one.value)
            except DecodeError:
                continue
            if metrics := good_metrics(message, self._metrics_max):
                self.messages.add(_told(message.device_id, message.ts, metrics))

    def in_dead_letter(self, payloads: Iterable[bytes]) -> None:
        self.refused.update(_digest(payload) for payload in payloads)


def check_sent(path: Path, settings: Settings, heard: Heard, say: Callable[[Sums], None]) -> Iterator[Finding]:
    """Each acknowledged message of the record that is in neither."""
    match = compile_topic(settings.mqtt.topic, settings.mqtt.device_id_template)
    sums: Counter[str] = Counter()
    for sent in record.read(path):
        if sent.acked_at is None:
            continue
        sums["asked"] += 1
        captures = match.match(sent.topic)
        device_id = match.device_id(captures) if captures is not None else None
        told = _expected(sent.payload, device_id, settings)
        in_log = told is not None and told in heard.messages
        refused = _digest(sent.payload) in heard.refused
        sums["log"] += in_log
        sums["dead"] += refused
        if not in_log and not refused:
            yield Finding(
                f"message {sent.n} of {path.name}, acknowledged, to {sent.topic}: neither in the log nor refused"
            )
    say(Sums(sums["asked"], sums["log"], sums["dead"]))


def _expected(payload: bytes, device_id: str | None, settings: Settings) -> Told | None:
    """What the message counts as, if any of it is good."""
    message = _read_json(payload) if payload[:1] == b"{" else _read_protobuf(payload)
    if message is None or device_id is None:
        return None
    message.device_id = device_id
    metrics = good_metrics(message, settings.decoding.metrics_max)
    return _told(message.device_id, message.ts, metrics) if metrics else None


def _read_json(payload: bytes) -> Telemetry | None:
    try:
        body: Any = json.loads(payload.decode())
        metrics = {name: float(value) for name, value in body["metrics"].items() if _is_number(value)}
        return Telemetry(ts=body["ts"], metrics=metrics)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)


def _read_protobuf(payload: bytes) -> Telemetry | None:
    try:
        return Telemetry.FromString(payload)
    except DecodeError:
        return None


def _told(device_id: str, ts: int, metrics: Mapping[str, float]) -> Told:
    parts = [device_id.encode(), pack("<q", ts)]
    for name in sorted(metrics):
        parts += [name.encode(), pack("<d", metrics[name])]
    return _digest(b"\0".join(parts))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
