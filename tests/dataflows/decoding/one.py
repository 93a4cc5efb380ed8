"""One payload, or one record, through a decoder, and what became of it in a form that tests can compare."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dataflows.decoding.arrivals import ArrivalsDecoder, Decoded
from dataflows.decoding.log import decode_log
from schemas.arrivals import Arrivals
from schemas.log import Headers, LogBatch, LogSlice
from schemas.record import Record
from schemas.settings import EVENT_HEADERS, DecodingSettings, EventHeader, KafkaSettings, MqttSettings, WindowSettings
from schemas.telemetry_pb2 import Telemetry

NOW = 1_763_700_000_000  # 2025-11-21T04:40:00Z
TOPIC = "devices/boiler-7/telemetry"
WORKER = "ionwax-ingest-0"


class Message(NamedTuple):
    """A message of raw.events as a test writes it down."""

    device_id: str
    ts: int
    metrics: Mapping[str, float]


def decoder(
    template: str = "devices/{device_id}/telemetry",
    device_id_template: str = "{device_id}",
    formats: Mapping[str, Mapping[str, str]] | None = None,
    payload_bytes_max: int = 1_048_576,
    metrics_max: int = 1_000,
    event_headers: frozenset[EventHeader] = EVENT_HEADERS,
    **windows: float,
) -> ArrivalsDecoder:
    return ArrivalsDecoder(
        MqttSettings(topic=template, device_id_template=device_id_template),
        DecodingSettings(payload_bytes_max=payload_bytes_max, metrics_max=metrics_max, formats=formats or {}),
        KafkaSettings(event_headers=event_headers),
        WindowSettings(**windows),  # type: ignore[arg-type]
    )


def arrive(
    payload: bytes, content_type: str | None = None, topic: str = TOPIC, by: ArrivalsDecoder | None = None
) -> Decoded:
    """What one payload that arrives at NOW becomes."""
    return (by or decoder()).decode(Arrivals(WORKER, [topic], [payload], [content_type], [NOW], [False]))


def events(decoded: Decoded) -> list[Message]:
    return [message_of(record) for record in decoded.records if record.topic == "raw.events"]


def message_of(record: Record) -> Message:
    """The message of a record, as Google's parser has it."""
    telemetry = Telemetry.FromString(record.value)
    assert record.key == telemetry.device_id.encode() == dict(record.headers).get("device-id", record.key)
    return Message(telemetry.device_id, telemetry.ts, dict(telemetry.metrics))


def letters(decoded: Decoded) -> list[Record]:
    return [record for record in decoded.records if record.topic == "raw.dead_letter"]


def reason(record: Record) -> str:
    return dict(record.headers)["reason"].decode()


def detail(record: Record) -> str:
    return dict(record.headers)["detail"].decode()


def batch(values: Sequence[bytes], headers: Mapping[int, Headers] | None = None, start: int = 100) -> LogBatch:
    """Records in a log from offset ``start`` on, a millisecond apart."""
    count = len(values)
    times = [NOW + i for i in range(count)]
    return LogBatch("raw.events", 3, start, start + count, range(start, start + count), times, values, headers or {})


def read(values: Sequence[bytes], headers: Mapping[int, Headers] | None = None, **settings: Any) -> LogSlice:
    """What records of the log become."""
    return decode_log(batch(values, headers), DecodingSettings(**settings))


def messages(log: LogSlice) -> list[Message]:
    """Messages of a slice, by offset."""
    rows = log.messages.select("device_id", "event_time", "metric", "value").rows()
    assert all(len(names) == len(set(names)) for _, _, names, _ in rows), "a metric stands twice in a message"
    return [Message(device_id, ts, dict(zip(names, values, strict=True))) for device_id, ts, names, values in rows]
