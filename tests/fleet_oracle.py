"""What the table must hold, told from the fleet's own record: a second opinion that shares no code with the decoders.

Plain Python, json and Google's protobuf parser, one payload at a time.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from struct import pack
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from schemas.telemetry_pb2 import Telemetry

MINUTE_MS = 60_000
AGE_MS_MAX = 7 * 86_400_000
AHEAD_MS_MAX = 60_000
METRICS_MAX = 1_000

Series = tuple[str, str]


class Row(NamedTuple):
    """A rollup by one group_by over everything that was sent."""

    count: int
    mean: float
    m2: float
    min: float
    max: float
    first: float
    last: float
    first_ts: int
    last_ts: int


@dataclass
class Expected:
    """Readings by series and minute, each identity once, and payloads that must stand in the dead letter."""

    readings: dict[tuple[Series, int], dict[bytes, tuple[int, float]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    repeated: int = 0
    messages: int = 0
    dead: set[bytes] = field(default_factory=set)

    def add(self, topic: str, payload: bytes, at: int) -> None:
        """Take in a message sent at ``at`` (ms)."""
        device_id = topic.split("/")[-2]
        body = _json(payload) if payload[:1] in (b"{", b"[") else _protobuf(payload)
        if body is None or body["device_id"] != device_id or not at - AGE_MS_MAX <= body["ts"] <= at + AHEAD_MS_MAX:
            self.dead.add(payload)
            return
        metrics = body["metrics"]
        good = {name: float(value) for name, value in metrics.items() if _is_good(name, value)}
        if len(metrics) > METRICS_MAX:
            good = {}
        if len(good) < len(metrics) or not good:
            self.dead.add(payload)
        self.messages += bool(good)
        for name, value in good.items():
            self._add((device_id, name), body["ts"], value)

    def _add(self, series: Series, ts: int, value: float) -> None:
        seen = self.readings[series, ts - ts % MINUTE_MS]
        identity = pack("<qd", ts, value)
        self.repeated += identity in seen
        seen.setdefault(identity, (ts, value))

    def rows(self, length_ms: int = MINUTE_MS) -> Mapping[tuple[Series, int], Row]:
        """Rows by series and start of the window (ms), for windows of whole minutes."""
        windows: dict[tuple[Series, int], list[tuple[int, float]]] = defaultdict(list)
        for (series, minute), seen in self.readings.items():
            windows[series, minute - minute % length_ms] += seen.values()
        return {key: _row(readings) for key, readings in windows.items()}


def _row(readings: Iterable[tuple[int, float]]) -> Row:
    by_time = sorted(readings, key=lambda reading: reading[0])
    values = [value for _, value in by_time]
    mean = math.fsum(values) / len(values)
    return Row(
        count=len(values),
        mean=mean,
        m2=math.fsum((value - mean) ** 2 for value in values),
        min=min(values),
        max=max(values),
        first=values[0],
        last=values[-1],
        first_ts=by_time[0][0],
        last_ts=by_time[-1][0],
    )


def _is_good(name: str, value: Any) -> bool:
    if not 1 <= len(name.encode()) <= 256 or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name):
        return False
    return isinstance(value, bool | int | float) and math.isfinite(value)


def _json(payload: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(payload.decode())  # takes NaN, which is then refused alone: its neighbours are good
    except ValueError:
        return None
    return body if isinstance(body["ts"], int) else None


def _protobuf(payload: bytes) -> dict[str, Any] | None:
    try:
        message = Telemetry.FromString(payload)
    except DecodeError:
        return None
    return {"device_id": message.device_id, "ts": message.ts, "metrics": dict(message.metrics)}
