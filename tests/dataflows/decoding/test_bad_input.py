"""What bad input gets over MQTT: a table. Each payload becomes a right row or a reason with its original bytes."""

import json
import struct
from typing import Any

import pytest

from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.decoding.one import NOW, TOPIC, arrive, decoder, detail, events, letters, reason

JSON = "application/json"
PROTOBUF = "application/x-protobuf"


def telemetry(**fields: Any) -> bytes:
    return Telemetry(**fields).SerializeToString()


def entry(key: bytes, value: bytes) -> bytes:
    """A map entry of field 3 with any bytes for its value."""
    inner = b"\x0a" + bytes([len(key)]) + key + value
    return b"\x1a" + bytes([len(inner)]) + inner


DOUBLE = b"\x11" + struct.pack("<d", 1.5)
FLOAT = b"\x15" + struct.pack("<f", 1.5)

REFUSED: list[tuple[bytes, str | None, str, str]] = [
    # payload, content type, reason, words of the detail
    (b"", None, "no_metrics", "no metrics"),
    (b"", JSON, "not_json", ""),
    (b"{", None, "not_json", ""),
    (b"{}", None, "no_metrics", "no metrics"),
    (b"[]", None, "no_metrics", "empty array"),
    (b"{]", None, "not_json", ""),
    (b'{"metrics":{"a":1}} trailing', None, "not_json", ""),
    (b'{"metrics":{"a":1}}' * 2, None, "not_json", ""),
    (b'{"metrics":{"a":01}}', None, "not_json", ""),
    (b"{'metrics':{'a':1}}", None, "not_json", ""),
    (b'{"metrics":{"a":nan}}', None, "not_json", ""),
    (b"21.5", JSON, "bad_shape", "a message is an object"),
    (b'"text"', JSON, "bad_shape", "a message is an object"),
    (b"null", JSON, "bad_shape", "a message is an object, this is null"),
    (b"[[]]", None, "bad_shape", "an array"),
    (b"[1]", None, "bad_shape", "a message is an object, this is 1"),
    # text that is not UTF-8
    (b'{"metrics":{"\xff":1}}', None, "not_json", "not UTF-8 at byte 13"),
    (b'{"metrics":{"a":1},"device_id":"\xed\xa0\x80"}', None, "not_json", "not UTF-8"),
    ('{"metrics":{"a":1}}'.encode("utf-16-le"), JSON, "not_json", ""),
    ('{"metrics":{"a":1}}'.encode("utf-16"), JSON, "not_json", ""),
    # depth and size
    (b'{"metrics":' + b"[" * 100_000, None, "bad_shape", "nested too deeply"),
    (b'{"metrics":' * 50_000, None, "bad_shape", "nested too deeply"),
    (b"[" * 500_000 + b"]" * 500_000, None, "bad_shape", "nested too deeply"),
    (b" " * 1_048_577, None, "too_large", "1048577 bytes; 1048576 are taken"),
    (json.dumps({"metrics": {f"m{i}": i for i in range(1_001)}}).encode(), None, "too_many_metrics", "1001 metrics"),
    (telemetry(metrics={f"m{i}": i for i in range(1_001)}), None, "too_many_metrics", "1000 are taken"),
    # metrics
    (b'{"metric":{"a":1}}', None, "no_metrics", ""),
    (b'{"metrics":null}', None, "no_metrics", ""),
    (b'{"metrics":{}}', None, "no_metrics", ""),
    (b'{"metrics":{"a":null}}', None, "no_metrics", ""),
    (b'{"metrics":[1]}', None, "bad_shape", "metrics are an array, not an object"),
    (b'{"metrics":5}', None, "bad_shape", "metrics are 5"),
    (b'{"metrics":"a"}', None, "bad_shape", "metrics are 'a'"),
    (b'{"metrics":{"a":"21.5"}}', None, "not_a_number", "metric 'a' is a string"),
    (b'{"metrics":{"a":{"b":1}}}', None, "not_a_number", "metric 'a' is an object"),
    (b'{"metrics":{"a":[1]}}', None, "not_a_number", "metric 'a' is an array"),
    (b'{"metrics":{"a":NaN}}', None, "not_a_number", "metric 'a' is not finite"),
    (b'{"metrics":{"a":-Infinity}}', None, "not_a_number", "metric 'a' is not finite"),
    (b'{"metrics":{"a":1e400}}', None, "not_a_number", "metric 'a' is not finite"),
    (b'{"metrics":{"a":-1e400}}', None, "not_a_number", "metric 'a' is not finite"),
    (b'{"metrics":{"a":' + b"9" * 309 + b"}}", None, "not_a_number", "metric 'a' is not finite"),
    (b'{"metrics":{"a":' + b"9" * 100_000 + b"}}", None, "not_a_number", "metric 'a' is not finite"),
    (telemetry(metrics={"a": float("nan")}), None, "not_a_number", "metric 'a' is not finite"),
    (telemetry(metrics={"a": float("inf")}), None, "not_a_number", "metric 'a' is not finite"),
    # metric names
    (b'{"metrics":{"":1}}', None, "bad_name", "metric '' is empty"),
    (b'{"metrics":{"\\u0000":1}}', None, "bad_name", r"metric '\x00' holds the control character U+0000"),
    (b'{"metrics":{"a\\u009fb":1}}', None, "bad_name", "U+009F"),
    (b'{"metrics":{"a\\nb":1}}', None, "bad_name", "U+000A"),
    (b'{"metrics":{"\\ud800":1}}', None, "bad_name", "lone surrogate"),
    (b'{"metrics":{"\\udc00\\ud800":1}}', None, "bad_name", "lone surrogate"),
    (json.dumps({"metrics": {"m" * 257: 1}}).encode(), None, "bad_name", "longer than 256 bytes"),
    (json.dumps({"metrics": {"ü" * 129: 1}}).encode(), None, "bad_name", "258 bytes long"),
    (json.dumps({"metrics": {"m" * 1_000_000: 1}}).encode(), None, "bad_name", "longer than 256 bytes"),
    (telemetry(metrics={"": 1}), None, "bad_name", "is empty"),
    (telemetry(metrics={"a\0": 1}), None, "bad_name", "U+0000"),
    # the device
    (b'{"device_id":"boiler-8","metrics":{"a":1}}', None, "device_mismatch", "'boiler-7', the payload of 'boiler-8'"),
    (b'{"device_id":"","metrics":{"a":1}}', None, "device_mismatch", ""),
    (b'{"device_id":"\\ud800","metrics":{"a":1}}', None, "device_mismatch", ""),
    (b'{"device_id":"Boiler-7","metrics":{"a":1}}', None, "device_mismatch", ""),
    (b'{"device_id":7,"metrics":{"a":1}}', None, "bad_shape", "device_id is 7, not a string"),
    (b'{"device_id":["boiler-7"],"metrics":{"a":1}}', None, "bad_shape", "device_id is an array"),
    (telemetry(device_id="x", metrics={"a": 1}), None, "device_mismatch", ""),
    # times
    (b'{"ts":0,"metrics":{"a":1}}', None, "timestamp_too_old", "1970-01-01T00:00:00.000Z"),
    (b'{"ts":-1,"metrics":{"a":1}}', None, "timestamp_too_old", "1969-12-31T23:59:59.999Z"),
    (b'{"ts":1763700000,"metrics":{"a":1}}', None, "timestamp_too_old", "seconds by mistake?"),
    (b'{"ts":1763700000.5,"metrics":{"a":1}}', None, "timestamp_too_old", "seconds by mistake?"),
    (b'{"ts":1763700000000000,"metrics":{"a":1}}', None, "timestamp_in_future", "microseconds by mistake?"),
    (b'{"ts":1763700000000000000,"metrics":{"a":1}}', None, "timestamp_in_future", "nanoseconds by mistake?"),
    (b'{"ts":253402300799999,"metrics":{"a":1}}', None, "timestamp_in_future", "9999-12-31T23:59:59.999Z"),
    (b'{"ts":253402300800000,"metrics":{"a":1}}', None, "timestamp_in_future", "outside the years 1 to 9999"),
    (b'{"ts":-99999999999999999999999999,"metrics":{"a":1}}', None, "timestamp_too_old", "outside the years"),
    (b'{"ts":' + b"9" * 300 + b',"metrics":{"a":1}}', None, "timestamp_in_future", "more than 128 bits"),
    (b'{"ts":1e300,"metrics":{"a":1}}', None, "timestamp_in_future", ""),
    (b'{"ts":1e400,"metrics":{"a":1}}', None, "bad_timestamp", "not finite"),
    (b'{"ts":NaN,"metrics":{"a":1}}', None, "bad_timestamp", "not finite"),
    (b'{"ts":true,"metrics":{"a":1}}', None, "bad_timestamp", "ts is true"),
    (b'{"ts":[1763700000000],"metrics":{"a":1}}', None, "bad_timestamp", "ts is an array"),
    (b'{"ts":{"s":1},"metrics":{"a":1}}', None, "bad_timestamp", "ts is an object"),
    (b'{"ts":"1763700000000","metrics":{"a":1}}', None, "bad_timestamp", "digits in a string; send a number"),
    (b'{"ts":"","metrics":{"a":1}}', None, "bad_timestamp", "not RFC 3339"),
    (b'{"ts":"2025-11-21","metrics":{"a":1}}', None, "bad_timestamp", "not RFC 3339"),
    (b'{"ts":"2025-11-21T04:40:00","metrics":{"a":1}}', None, "bad_timestamp", "with an offset"),
    (b'{"ts":"2025-11-31T04:40:00Z","metrics":{"a":1}}', None, "bad_timestamp", "out of range"),
    (b'{"ts":"0000-01-01T00:00:00Z","metrics":{"a":1}}', None, "bad_timestamp", ""),
    (b'{"ts":"2025-11-21T24:00:00Z","metrics":{"a":1}}', None, "bad_timestamp", ""),
    (b'{"ts":"' + b"1" * 1_000_000 + b'","metrics":{"a":1}}', None, "bad_timestamp", "digits in a string"),
    (b'{"ts":"9999-12-31T23:59:59-23:59","metrics":{"a":1}}', None, "timestamp_in_future", "outside the years"),
    (telemetry(ts=-(2**63), metrics={"a": 1}), None, "timestamp_too_old", "outside the years"),
    (telemetry(ts=2**63 - 1, metrics={"a": 1}), None, "timestamp_in_future", "outside the years"),
    # protobuf
    (telemetry(device_id="boiler-7", ts=NOW, metrics={"a": 1})[:-1], None, "bad_protobuf", ""),
    (b"\x00", None, "bad_protobuf", ""),
    (b"hello", None, "bad_protobuf", ""),
    (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", None, "bad_protobuf", ""),
    (b"\x0a\x02\xff\xfe", None, "bad_protobuf", "UTF-8"),
    (entry(b"\xff", DOUBLE), None, "bad_protobuf", "UTF-8"),
    (entry(b"a", FLOAT), None, "bad_shape", "not a map of string to double"),
    (entry(b"a", b"\x10\x05"), None, "bad_shape", "not a map of string to double"),
    (entry(b"a", DOUBLE) + entry(b"b", FLOAT), None, "bad_shape", "not a map of string to double"),
    (b"+" * 200_000, None, "bad_protobuf", ""),
    (b'{"metrics":{"a":1}}', PROTOBUF, "bad_protobuf", ""),
    (telemetry(metrics={"a": 1}), JSON, "not_json", ""),
    # content types
    (b'{"metrics":{"a":1}}', "text/csv", "unknown_schema", "'text/csv': no such format; known are application/json"),
    (b'{"metrics":{"a":1}}', "x" * 65_535, "unknown_schema", "no such format"),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "content_type", "why", "words"), REFUSED, ids=range(len(REFUSED)))
def test_a_bad_payload_is_refused_with_its_reason(
    payload: bytes, content_type: str | None, why: str, words: str
) -> None:
    """One dead letter, nothing else: the reason, words for a person, and where it came from."""
    decoded = arrive(payload, content_type)
    (letter,) = decoded.records
    assert (why, "raw.dead_letter") == (reason(letter), letter.topic)
    assert words in detail(letter)
    told = {"reason", "detail", "source-topic", "ingest-node-id", *(["content-type"] if content_type else [])}
    assert dict(letter.headers).keys() - {"original-size", "sha256"} == told
    assert dict(letter.headers)["source-topic"] == TOPIC.encode()
    assert dict(letter.headers)["ingest-node-id"] == b"ionwax-ingest-0"
    if why != "too_large":
        assert letter.value == payload


MANY = {f"m{i}": float(i) for i in range(1_000)}

RIGHT: list[tuple[bytes, str | None, dict[str, float], int]] = [
    # payload, content type, metrics, ts
    (b'{"metrics":{"a":1}}', None, {"a": 1.0}, NOW),
    (b'{"ts":null,"device_id":null,"metrics":{"a":1,"b":null}}', None, {"a": 1.0}, NOW),
    (b'{"metrics":{"a":true,"b":false}}', None, {"a": 1.0, "b": 0.0}, NOW),
    (b'{"metrics":{"a":1e-400,"b":-0.0}}', None, {"a": 0.0, "b": -0.0}, NOW),
    (b'{"metrics":{"a":9007199254740993}}', None, {"a": 9007199254740992.0}, NOW),
    (b'{"metrics":{"a":' + b"9" * 308 + b"}}", None, {"a": 1e308}, NOW),
    (b'{"metrics":{"a":1.7976931348623157e308}}', None, {"a": 1.7976931348623157e308}, NOW),
    # of a key that stands twice the last one counts
    (b'{"metrics":{"a":1,"a":2}}', None, {"a": 2.0}, NOW),
    (b'{"metrics":{"a":1},"metrics":{"b":2}}', None, {"b": 2.0}, NOW),
    (entry(b"a", DOUBLE) + entry(b"a", DOUBLE.replace(b"\xf8", b"\xf0")), None, {"a": 1.0}, NOW),
    # what nobody asked for is passed over
    (b'{"fw":"1.2","extra":[[1e400]],"metrics":{"a":1}}', None, {"a": 1.0}, NOW),
    (telemetry(metrics={"a": 1}) + b"\x28\x05", None, {"a": 1.0}, NOW),
    # white space and a byte order mark
    (b'\xef\xbb\xbf{"metrics":{"a":1}}', None, {"a": 1.0}, NOW),
    (b' \r\n\t{"metrics":{"a":1}}\n', None, {"a": 1.0}, NOW),
    (b'\n{"metrics":{"a":1}}', None, {"a": 1.0}, NOW),
    (b'\xef\xbb\xbf [{"metrics":{"a":1}}]', JSON, {"a": 1.0}, NOW),
    # names
    ('{"metrics":{"température 🌡":1}}'.encode(), None, {"température 🌡": 1.0}, NOW),
    (b'{"metrics":{"\\ud83c\\udf21":1}}', None, {"🌡": 1.0}, NOW),
    (json.dumps({"metrics": {"ü" * 128: 1}}).encode(), None, {"ü" * 128: 1.0}, NOW),
    (json.dumps({"metrics": {"m" * 256: 1}}).encode(), None, {"m" * 256: 1.0}, NOW),
    (json.dumps({"metrics": MANY}).encode(), None, MANY, NOW),
    # times
    (b'{"ts":1763700000001,"metrics":{"a":1}}', None, {"a": 1.0}, NOW + 1),
    (b'{"ts":1763700000001.9,"metrics":{"a":1}}', None, {"a": 1.0}, NOW + 1),
    (b'{"ts":1.763700000001e12,"metrics":{"a":1}}', None, {"a": 1.0}, NOW + 1),
    (b'{"ts":"2025-11-21T04:40:00Z","metrics":{"a":1}}', None, {"a": 1.0}, NOW),
    (b'{"ts":"2025-11-21t05:40:00.0019+01:00","metrics":{"a":1}}', None, {"a": 1.0}, NOW + 1),
    (b'{"ts":"2025-11-21 04:39:60z","metrics":{"a":1}}', None, {"a": 1.0}, NOW),
    (b'{"ts":1763700060000,"metrics":{"a":1}}', None, {"a": 1.0}, NOW + 60_000),
    (b'{"ts":1763095200000,"metrics":{"a":1}}', None, {"a": 1.0}, NOW - 604_800_000),
    (telemetry(ts=0, metrics={"a": 1}), None, {"a": 1.0}, NOW),
    (telemetry(ts=NOW - 5, metrics={"a": 1}), None, {"a": 1.0}, NOW - 5),
    # content types
    (b'{"metrics":{"a":1}}', "Application/JSON; charset=utf-8", {"a": 1.0}, NOW),
    (b'{"metrics":{"a":1}}', "text/plain", {"a": 1.0}, NOW),
    (telemetry(metrics={"a": 1}), "application/octet-stream", {"a": 1.0}, NOW),
    (telemetry(metrics={"a": 1}), "application/protobuf", {"a": 1.0}, NOW),
    (telemetry(device_id="boiler-7", metrics={"a": 0}), PROTOBUF, {"a": 0.0}, NOW),
    (entry(b"a", b""), None, {"a": 0.0}, NOW),  # a default that some encoders leave out
]  # fmt: skip


@pytest.mark.parametrize(("payload", "content_type", "metrics", "ts"), RIGHT, ids=range(len(RIGHT)))
def test_an_odd_payload_becomes_the_right_row(
    payload: bytes, content_type: str | None, metrics: dict[str, float], ts: int
) -> None:
    """One record with exactly these readings, no dead letter."""
    decoded = arrive(payload, content_type)
    assert [("boiler-7", ts, metrics)] == events(decoded)
    assert letters(decoded) == []


def test_times_just_outside_the_limits_are_refused() -> None:
    """The limits themselves are taken (in the table above), a millisecond more is not."""
    for ts, why in ((NOW + 60_001, "timestamp_in_future"), (NOW - 604_800_001, "timestamp_too_old")):
        (letter,) = arrive(b'{"ts":%d,"metrics":{"a":1}}' % ts).records
        assert reason(letter) == why


TOPICS = [
    ("devices//telemetry", "bad_name", "device_id '' in the topic is empty"),
    ("devices/a\x00b/telemetry", "bad_name", "U+0000"),
    ("devices/\x1b[2J/telemetry", "bad_name", "U+001B"),
    (f"devices/{'d' * 257}/telemetry", "bad_name", "longer than 256 bytes"),
    (f"devices/{'🌡' * 65}/telemetry", "bad_name", "260 bytes"),
    ("devices/a/b/telemetry", "bad_shape", "is none of the template 'devices/+/telemetry'"),
    ("", "bad_shape", "is none of the template"),
    ("x" * 65_535, "bad_shape", "is none of the template"),
]


@pytest.mark.parametrize(("topic", "why", "words"), TOPICS, ids=range(len(TOPICS)))
def test_a_bad_topic_is_refused_with_its_reason(topic: str, why: str, words: str) -> None:
    """The topic names the device, so the same rule holds for it; the payload is kept."""
    payload = b'{"metrics":{"a":1}}'
    (letter,) = arrive(payload, topic=topic).records
    assert (why, payload) == (reason(letter), letter.value)
    assert words in detail(letter)


@pytest.mark.parametrize("device", ["🌡️", "d" * 256, "🌡" * 64, "..", "a b", "$SYS", "'; drop table", "\u2028", "%00"])
def test_odd_ids_reach_the_row_unharmed(device: str) -> None:
    """What is no control character and fits in 256 bytes is an id, in topic and payload."""
    payload = json.dumps({"device_id": device, "metrics": {"a": 1}}).encode()
    assert [(device, NOW, {"a": 1.0})] == events(arrive(payload, topic=f"devices/{device}/telemetry"))
    assert [(device, NOW, {"a": 1.0})] == events(arrive(payload, topic="plant", by=decoder("plant")))


def test_telemetry_that_looks_like_json_is_telemetry() -> None:
    """A device id of 123 bytes makes protobuf begin with a line feed and a brace."""
    device = "d" * 123
    payload = telemetry(device_id=device, ts=NOW, metrics={"a": 1})
    assert payload.startswith(b"\n{")
    assert [(device, NOW, {"a": 1.0})] == events(arrive(payload, topic=f"devices/{device}/telemetry"))
    (letter,) = arrive(payload[:-1], topic=f"devices/{device}/telemetry").records
    assert reason(letter) in ("not_json", "bad_protobuf")


@pytest.mark.parametrize(
    ("device", "why"),
    [(None, "bad_name"), ("", "bad_name"), ("a\0", "bad_name"), ("\ud800", "bad_name"), (7, "bad_shape")],
)
def test_a_payload_that_has_to_name_its_device_and_does_not_is_refused(device: object, why: str) -> None:
    """Where the topic captures no device id, the rule for names holds for the payload's."""
    payload = json.dumps({"device_id": device, "metrics": {"a": 1}}).encode()
    for by in (decoder("{line}"), decoder("{line}", "{line}/{device_id}")):
        (letter,) = arrive(payload, topic="plant", by=by).records
        assert (why, payload) == (reason(letter), letter.value)
