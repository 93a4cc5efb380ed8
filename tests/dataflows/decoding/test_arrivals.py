"""MQTT payloads to records: headers, arrays, partial refusals, dead letters, counts."""

import hashlib
import json
import re

from connectors.kafka_client import RECORD_BYTES_MAX
from dataflows.decoding.arrivals import ArrivalsDecoder
from schemas.arrivals import Arrivals
from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.decoding.one import (
    NOW,
    TOPIC,
    arrive,
    decoder,
    detail,
    events,
    letters,
    message_of,
    messages,
    read,
    reason,
)
from tests.dataflows.decoding.payloads import PTARS_ALONE, entry

USERS = "users/{user}/devices/{device_id}/telemetry"


def test_a_record_is_what_the_contract_says() -> None:
    """Key, headers, time and value of a record of raw.events."""
    (record,) = arrive(b'{"ts":1763699999000,"metrics":{"temperature":21.5,"running":true}}').records
    headers = {"device-id": b"boiler-7", "schema-version": b"1", "ingest-node-id": b"ionwax-ingest-0"}
    assert ("raw.events", b"boiler-7", None, NOW) == (record.topic, record.key, record.partition, record.timestamp_ms)
    assert headers == dict(record.headers)
    assert ("boiler-7", NOW - 1_000, {"temperature": 21.5, "running": 1.0}) == message_of(record)


def test_a_record_has_the_headers_that_the_settings_ask_for() -> None:
    """All of the contract, some, or none; what the topic says besides travels in any case."""
    for asked in (["device-id"], ["ingest-node-id", "schema-version"], []):
        by = decoder("users/{user}/telemetry", event_headers=frozenset(asked))
        payload = b'{"device_id":"boiler-7","metrics":{"a":1}}'
        (record,) = arrive(payload, topic="users/ada/telemetry", by=by).records
        assert {*asked, "user"} == dict(record.headers).keys()
        assert b"boiler-7" == record.key == dict(record.headers).get("device-id", record.key)


def test_captures_that_make_no_device_id_travel_as_headers() -> None:
    """``user`` is a header with the default device id template, and part of the id with another."""
    topic = "users/ada/devices/boiler-7/telemetry"
    (record,) = arrive(b'{"metrics":{"a":1}}', topic=topic, by=decoder(USERS)).records
    assert (b"boiler-7", b"ada") == (record.key, dict(record.headers)["user"])
    (record,) = arrive(b'{"metrics":{"a":1}}', topic=topic, by=decoder(USERS, "{user}/{device_id}")).records
    assert b"ada/boiler-7" == record.key
    assert "user" not in dict(record.headers)


def test_a_payload_may_name_its_device_as_the_topic_or_as_the_log_does() -> None:
    """With a composed id a device knows its own part; both forms are the same device, any other is not."""
    by = decoder(USERS, "{user}/{device_id}")
    for device, taken in (("boiler-7", True), ("ada/boiler-7", True), ("ada", False), ("bob/boiler-7", False)):
        payload = json.dumps({"device_id": device, "metrics": {"a": 1}}).encode()
        decoded = arrive(payload, topic="users/ada/devices/boiler-7/telemetry", by=by)
        assert (["ada/boiler-7"] if taken else []) == [message.device_id for message in events(decoded)]
        assert ([] if taken else ["device_mismatch"]) == [reason(letter) for letter in letters(decoded)]


def test_one_payload_may_speak_for_several_devices() -> None:
    """Where the topic captures no device id, each message of an array names its own."""
    payload = b'[{"device_id":"b1","metrics":{"a":1}},{"device_id":"b2","metrics":{"a":2}}]'
    decoded = arrive(payload, topic="plant/north", by=decoder("plant/{line}", "{line}/{device_id}"))
    assert [("north/b1", NOW, {"a": 1.0}), ("north/b2", NOW, {"a": 2.0})] == events(decoded)


def test_a_refused_value_does_not_take_its_neighbours_along() -> None:
    """Good metrics go on; the payload goes once to the dead letter with the refused names in detail."""
    payload = b'{"metrics":{"good":1,"text":"21.5","huge":1e400,"":2,"fine":2,"gone":null}}'
    decoded = arrive(payload)
    assert [{"good": 1.0, "fine": 2.0}] == [message.metrics for message in events(decoded)]
    (letter,) = letters(decoded)
    assert ("not_a_number", payload) == (reason(letter), letter.value)
    assert "metric 'text' is a string; metric 'huge' is not finite; metric '' is empty" == detail(letter)


def test_values_that_cancel_each_other_are_judged_one_by_one() -> None:
    """Also by a decoder that knows their names: a sum hides no fault, and is none."""
    by = decoder()
    arrive(b'{"metrics":{"a":1,"b":2}}', by=by)
    huge = "9" * 309
    for a, b, good in (
        (huge, f"-{huge}", {}),
        ("Infinity", "-Infinity", {}),
        ("NaN", "0", {"b": 0.0}),
        (huge, "-1e308", {"b": -1e308}),
        ("1.7e308", "1.7e308", {"a": 1.7e308, "b": 1.7e308}),
        ("9" * 308, "true", {"a": 1e308, "b": 1.0}),
        ("null", "2", {"b": 2.0}),
    ):
        decoded = arrive(f'{{"metrics":{{"a":{a},"b":{b}}}}}'.encode(), by=by)
        assert ([good] if good else []) == [message.metrics for message in events(decoded)]
        assert (0 if len(good) == 2 or a == "null" else 1) == len(letters(decoded))


def test_an_array_is_dead_lettered_once_and_whole() -> None:
    """Each bad message is named by its place; the good ones went on."""
    payload = b'[{"metrics":{"a":1}},7,{"ts":0,"metrics":{"a":2}},{"metrics":{"a":3,"b":"x"}}]'
    decoded = arrive(payload)
    assert [{"a": 1.0}, {"a": 3.0}] == [message.metrics for message in events(decoded)]
    (letter,) = letters(decoded)
    assert ("bad_shape", payload) == (reason(letter), letter.value)
    for words in ("message 2 of 4: bad_shape", "message 3 of 4: timestamp_too_old", "message 4 of 4: not_a_number"):
        assert words in detail(letter)


def test_details_are_bounded() -> None:
    """However much is wrong, a header stays small, and says how much it left out."""
    many = json.dumps({"metrics": {f"{'m' * 200}{i}": "x" for i in range(1_000)}}).encode()
    (letter,) = arrive(many).records
    assert len(dict(letter.headers)["detail"]) < 2_000
    assert detail(letter).endswith("more")
    (letter,) = arrive(b"[" + b",".join([b"7"] * 10_000) + b"]").records
    assert len(dict(letter.headers)["detail"]) < 2_000
    assert detail(letter).endswith("and 9990 more")
    (letter,) = arrive(b"{}", topic="t" * 65_535).records
    assert b"t" * 2_000 == dict(letter.headers)["source-topic"]


def test_a_payload_above_the_limit_is_cut_and_identified() -> None:
    """Its first 64 KB, original size and SHA-256; at the limit it is still decoded."""
    payload = b'{"metrics":{"a":1}}' + b" " * 200_000
    assert len(events(arrive(payload, by=decoder(payload_bytes_max=len(payload))))) == 1
    (letter,) = arrive(payload[1:], by=decoder(payload_bytes_max=len(payload) - 1)).records
    assert payload[1:] == letter.value, "refused, but not for its size"
    assert "sha256" not in dict(letter.headers)
    (letter,) = arrive(payload, by=decoder(payload_bytes_max=len(payload) - 1)).records
    headers = dict(letter.headers)
    assert ("too_large", payload[:65_536]) == (reason(letter), letter.value)
    assert str(len(payload)).encode() == headers["original-size"]
    assert hashlib.sha256(payload).hexdigest().encode() == headers["sha256"]


def test_no_payload_outgrows_a_record_of_kafka() -> None:
    """At the largest settings, the payload that grows most: as many metrics as there may be, shortly written."""
    metrics = {f"{i:015x}": 1 for i in range(65_500)}
    payload = json.dumps({"metrics": metrics}, separators=(",", ":")).encode()
    assert 1_300_000 < len(payload) < 1_310_720
    (record,) = arrive(payload, by=decoder(payload_bytes_max=1_310_720, metrics_max=65_536)).records
    assert ("raw.events", 65_500) == (record.topic, len(message_of(record).metrics))
    assert len(payload) < len(record.value) < RECORD_BYTES_MAX - 65_536


def test_a_device_may_send_bytes_of_its_own() -> None:
    """Telemetry.raw is carried along, untouched."""
    sent = Telemetry(metrics={"a": 1}, raw=b"\x00\xff" * 300)
    (record,) = arrive(sent.SerializeToString()).records
    assert sent.raw == Telemetry.FromString(record.value).raw


def test_good_telemetry_goes_on_as_it_came() -> None:
    """Byte for byte, in whatever order its encoder wrote it, where topic and payload say all that is needed."""
    telemetry = Telemetry(device_id="boiler-7", ts=NOW - 5, metrics={"b": 2, "a": 0}, raw=b"x").SerializeToString()
    backwards = (
        Telemetry(metrics={"a": 1}).SerializeToString() + Telemetry(device_id="boiler-7", ts=NOW).SerializeToString()
    )
    for sent in (telemetry, backwards):
        (record,) = arrive(sent).records
        assert sent == record.value


def test_nothing_reaches_the_log_that_some_parser_would_read_otherwise() -> None:
    """What a device puts beside its metrics stays behind, or the whole is refused; also in the guise of its size."""
    sent = Telemetry(device_id="boiler-7", ts=NOW, metrics={"a": 1}).SerializeToString()
    (record,) = arrive(sent + b"\x28\x05").records
    assert sent == record.value
    names = [f"m{i}" for i in range(50)]
    (record,) = arrive(Telemetry(metrics=dict.fromkeys(names, 1)).SerializeToString() + b"\x28\x05").records
    assert sorted(names) == re.findall("m[0-9]+", record.value.decode("latin-1")), "always in the same order"
    left_out = b"".join(entry(b"%02d" % i, b"") for i in range(30))  # thirty zeros, of 9 bytes each not written
    in_disguise = left_out + b"+" * 135 + b"," * 135
    assert len(in_disguise) == len(b"".join(entry(b"%02d" % i, b"\x11" + bytes(8)) for i in range(30)))
    for beside in (PTARS_ALONE, in_disguise):
        assert ["bad_protobuf"] == [reason(letter) for letter in arrive(sent + beside).records]


def test_telemetry_is_completed_by_what_only_we_know() -> None:
    """Device id of the topic and time of arrival, also where the payload says expressly that it has none."""
    metrics = Telemetry(metrics={"a": 1}).SerializeToString()
    for silent in (metrics, b"\x0a\x00\x10\x00" + metrics, metrics + b"\x0a\x00\x10\x00"):
        decoded = arrive(silent)
        assert [("boiler-7", NOW, {"a": 1.0})] == events(decoded)
        assert decoded.untimed == 1
        assert [("boiler-7", NOW, {"a": 1.0})] == messages(read([decoded.records[0].value]))
    timed = Telemetry(device_id="boiler-7", ts=NOW - 5, metrics={"a": 1}).SerializeToString()
    decoded = arrive(timed, topic="users/ada/devices/boiler-7/telemetry", by=decoder(USERS, "{user}/{device_id}"))
    assert [("ada/boiler-7", NOW - 5, {"a": 1.0})] == events(decoded)
    assert decoded.untimed == 0


def test_messages_are_counted_as_what_they_became() -> None:
    """Messages with and without a time, and dead letters by reason; records stand in the order of arrival."""
    payloads = [b'{"metrics":{"a":1}}', b"{", b'{"ts":1763700000000,"metrics":{"a":2,"b":"x"}}', b"[1]", b"{"]
    count = len(payloads)
    decoded = decoder().decode(
        Arrivals("w", [TOPIC] * count, payloads, [None] * count, [NOW + i for i in range(count)], [False] * count)
    )
    assert (2, 1) == (decoded.messages, decoded.untimed)
    assert {"not_json": 2, "not_a_number": 1, "bad_shape": 1} == dict(decoded.dead_letters)
    assert [NOW, NOW + 1, NOW + 2, NOW + 2, NOW + 3, NOW + 4] == [record.timestamp_ms for record in decoded.records]


def test_the_same_arrivals_give_the_same_records() -> None:
    """What a decoder remembers makes it fast, and changes nothing: workers, topics and names may alternate."""

    def outcome(by: ArrivalsDecoder, worker: str, device: str) -> object:
        payload = b'{"metrics":{"a":1,"b\\n":2}}'
        return by.decode(Arrivals(worker, [f"devices/{device}/telemetry"], [payload], [None], [NOW], [True]))

    shared = decoder()
    for worker, device in (("w0", "d0"), ("w1", "d0"), ("w0", "d1"), ("w0", "d0"), ("w1", "d1")):
        assert outcome(decoder(), worker, device) == outcome(shared, worker, device)
