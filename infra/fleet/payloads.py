"""A reading as the bytes that a device publishes: JSON or protobuf ``Telemetry``, whole or broken in a known way."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from infra.fleet.plan import Format
from schemas.telemetry_pb2 import Telemetry

CONTENT_TYPES: Final[Mapping[Format, str]] = {"json": "application/json", "protobuf": "application/x-protobuf"}


def payload(form: Format, device_id: str, ts: int, metrics: Mapping[str, float]) -> bytes:
    """One message. ``running`` is a boolean in JSON and 0 or 1 in protobuf. Equal arguments give equal bytes."""
    if form == "json":
        return msgspec.json.encode(_body(device_id, ts, metrics))
    return Telemetry(device_id=device_id, ts=ts, metrics=metrics).SerializeToString(deterministic=True)


def _body(device_id: str, ts: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    plain = {name: bool(value) if name == "running" else value for name, value in metrics.items()}
    return {"device_id": device_id, "ts": ts, "metrics": plain}


Break = Callable[[str, int, Mapping[str, float]], bytes]


def _json(**changes: Any) -> Break:
    """A message that is JSON, with some of its members replaced."""
    return lambda device_id, ts, metrics: msgspec.json.encode(_body(device_id, ts, metrics) | changes)


def _replaced(name: bytes, by: bytes) -> Break:
    """A message in whose JSON the value of ``name`` is other bytes."""

    def broken(device_id: str, ts: int, metrics: Mapping[str, float]) -> bytes:
        head, _, tail = payload("json", device_id, ts, metrics).partition(b'"' + name + b'":')
        cut = min(i for i in (tail.find(b","), tail.find(b"}")) if i >= 0)
        return head + b'"' + name + b'":' + by + tail[cut:]

    return broken


def _proto(change: Callable[[Telemetry], None]) -> Break:
    def broken(device_id: str, ts: int, metrics: Mapping[str, float]) -> bytes:
        message = Telemetry(device_id=device_id, ts=ts, metrics=metrics)
        change(message)
        return message.SerializeToString(deterministic=True)

    return broken


BROKEN: Final[Mapping[Format, Mapping[str, Break]]] = {
    "json": {
        "truncated": lambda *it: payload("json", *it)[:-9],
        "not-utf8": _replaced(b"device_id", b'"\xff\xfe"'),
        "bare-nan": _replaced(b"temperature", b"NaN"),
        "infinite": _replaced(b"temperature", b"1e400"),
        "in-words": _replaced(b"temperature", b'"hot"'),  # in part: the other metrics are good
        "nested": _replaced(b"temperature", b'{"value":21.5}'),
        "no-metrics": _json(metrics={}),
        "bad-name": lambda device_id, ts, _: payload("json", device_id, ts, {"tempera\x00ture": 1.5}),
        "too-many": lambda device_id, ts, _: payload("json", device_id, ts, {f"m{i}": 0.5 for i in range(1_500)}),
        "in-seconds": lambda device_id, ts, metrics: payload("json", device_id, ts // 1_000, metrics),
        "far-future": _json(ts=253_402_300_000_000),
        "no-time": _json(ts="yesterday"),
        "other-device": _json(device_id="somebody-else"),
    },
    "protobuf": {
        "truncated": lambda *it: payload("protobuf", *it)[:-5],
        "garbage": lambda device_id, *_: b"\x0a\xff\xff" + device_id.encode(),
        "not-a-number": _proto(lambda message: message.metrics.update({"temperature": float("nan")})),
        "no-metrics": _proto(lambda message: message.metrics.clear()),
        "bad-name": lambda device_id, ts, _: payload("protobuf", device_id, ts, {"tempera\x00ture": 1.5}),
        "too-many": lambda device_id, ts, _: payload("protobuf", device_id, ts, {f"m{i}": 0.5 for i in range(1_500)}),
        "in-seconds": lambda device_id, ts, metrics: payload("protobuf", device_id, ts // 1_000, metrics),
        "far-future": _proto(lambda message: setattr(message, "ts", 253_402_300_000_000)),
        "other-device": _proto(lambda message: setattr(message, "device_id", "somebody-else")),
    },
}
"""Kinds of broken payload by format: each makes bytes that ingest must refuse, or use only in part."""


def broken(form: Format, choice: float, device_id: str, ts: int, metrics: Mapping[str, float]) -> tuple[str, bytes]:
    """A payload broken in one of the known ways, and the name of the way; ``choice`` in [0, 1) picks it."""
    kinds = list(BROKEN[form].items())
    name, make = kinds[int(choice * len(kinds))]
    return name, make(device_id, ts, metrics)
