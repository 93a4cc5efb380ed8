"""A reading typed by a person, as the message that a device would publish, and what will become of it.

Pure. What will become of it is asked of ingest's own decoder, so that what is said here is what will happen there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from dataflows.decoding.arrivals import ArrivalsDecoder
from dataflows.decoding.topics import compile_topic
from infra.duration import seconds
from schemas.arrivals import Arrivals
from schemas.errors import OperatorError
from schemas.settings import Settings, WindowSettings
from schemas.telemetry_pb2 import Telemetry

_CAPTURE: Final = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Expected:
    """One reading that ingest will take, and the window it belongs to. Times are ms."""

    device_id: str
    metric: str
    event_ms: int
    bucket_ms: int
    closes_ms: int  # when its window is past the allowed lateness: about a second later its row is there


@dataclass(frozen=True, slots=True)
class Forecast:
    """What ingest will make of a payload: readings, and a reason where it refuses all or a part of it."""

    readings: Sequence[Expected]
    refused: str | None


def topic_of(settings: Settings, device: str, captures: Mapping[str, str]) -> str:
    """The topic that ``device`` publishes to. Raises ``OperatorError`` where the template asks for more."""
    levels = {"device_id": device, **captures}
    names = _CAPTURE.findall(settings.mqtt.topic)
    if unknown := captures.keys() - set(names):
        raise OperatorError(f"the topic is {settings.mqtt.topic}: it has no {{{min(unknown)}}}")
    if missing := [name for name in names if name not in levels]:
        asked = " ".join(f"--capture {name}=…" for name in missing)
        raise OperatorError(f"the topic is {settings.mqtt.topic}: say {asked} too")
    for name in names:
        if not levels[name] or set(levels[name]) & set("/+#\0"):
            raise OperatorError(
                f"{name} {levels[name]!r} cannot be a level of an MQTT topic: / + # are not possible there"
            )
    topic = _CAPTURE.sub(lambda found: levels[found[1]], settings.mqtt.topic)
    if "+" in topic.split("/"):
        raise OperatorError(f"the topic template {settings.mqtt.topic} has a + that nothing here can fill in")
    return topic


def payload_of(device: str, metrics: Sequence[str], ts_ms: int) -> bytes:
    """JSON of ``name=value`` words; a value is a number, true or false."""
    found: dict[str, float | bool] = {}
    for word in metrics:
        name, given, text = word.rpartition("=")
        if not given or not name:
            raise OperatorError(f"{word!r} is no metric: write name=value, as in temperature=21.5")
        found[name] = _value(name, text)
    return msgspec.json.encode({"device_id": device, "ts": ts_ms, "metrics": found})


def _value(name: str, text: str) -> float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value or value in (float("inf"), float("-inf")):
        raise OperatorError(f"{name}={text}: not a finite number, true or false; --raw sends whatever you like")
    return value


def instant(text: str, now_ms: int) -> int:
    """Ms since the epoch of ``text``: as ms, as RFC 3339, or as a distance from now (``-90s``, ``+5m``)."""
    if re.fullmatch(r"-?\d{10,}", text):
        return int(text)
    if text[:1] in ("-", "+"):
        return now_ms + round(float(text[0] + "1") * 1_000 * seconds(text[1:]))
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise OperatorError(f"--ts {text}: write 2026-01-31T12:00:00Z, milliseconds since 1970, or -90s") from None
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1_000)


def forecast(settings: Settings, topic: str, payload: bytes, now_ms: int) -> Forecast:
    """What ingest, run with these settings, will make of ``payload`` if it arrives now."""
    arrivals = Arrivals(settings.mqtt.workers[0], [topic], [payload], [None], [now_ms], [False])
    readings: list[Expected] = []
    refused = None
    decoder = ArrivalsDecoder(settings.mqtt, settings.decoding, settings.kafka, settings.windows)
    for record in decoder.decode(arrivals).records:
        if record.topic == settings.kafka.dead_letter_topic:
            headers: dict[str, Any] = dict(record.headers)
            refused = f"{headers['reason'].decode()}: {headers['detail'].decode()}"
            continue
        message = Telemetry.FromString(record.value)
        bucket_ms, closes_ms = window_of(settings.windows, message.ts)
        readings += [
            Expected(message.device_id, metric, message.ts, bucket_ms, closes_ms) for metric in sorted(message.metrics)
        ]
    return Forecast(readings, refused)


def window_of(windows: WindowSettings, event_ms: int) -> tuple[int, int]:
    """Start of the window of an event time, and when it is past the allowed lateness, ms."""
    length_ms = windows.length_secs * 1_000
    bucket_ms = event_ms // length_ms * length_ms
    return bucket_ms, bucket_ms + length_ms + round(windows.allowed_lateness_secs * 1_000)


def check_topic(settings: Settings, topic: str) -> None:
    """Raise ``OperatorError`` where ingest does not listen to ``topic``: nobody would ever hear."""
    template = compile_topic(settings.mqtt.topic, settings.mqtt.device_id_template)
    if template.match(topic) is None:
        raise OperatorError(f"ingest does not listen to {topic}; it listens to {template.filter}")
