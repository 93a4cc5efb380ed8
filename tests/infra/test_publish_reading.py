"""A reading typed by a person becomes the message a device would send, and its fate is foretold by ingest's decoder."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.publish import announcement
from infra.reading import forecast, instant, payload_of, topic_of, window_of
from schemas.errors import OperatorError
from schemas.settings import MqttSettings, Settings, WindowSettings

NOW_MS = 1_763_700_000_000
BY_USER = Settings(
    mqtt=MqttSettings(topic="users/{user}/devices/{device_id}/telemetry", device_id_template="{user}/{device_id}")
)


def foretold(payload: bytes, settings: Settings = Settings(), topic: str = "devices/boiler-7/telemetry"):  # noqa: B008
    return forecast(settings, topic, payload, NOW_MS)


def test_words_become_numbers_and_booleans():
    """The name is all before the last equals sign."""
    body = json.loads(payload_of("boiler-7", ["temperature=21.5", "running=True", "a=b=-3e2"], NOW_MS))
    assert body == {
        "device_id": "boiler-7",
        "ts": NOW_MS,
        "metrics": {"temperature": 21.5, "running": True, "a=b": -300},
    }


@pytest.mark.parametrize("word", ["temperature", "=3", "temperature=", "temperature=hot", "temperature=nan", "t=1e999"])
def test_words_that_are_no_reading_are_refused(word):
    """Neither half may be missing, and the value is finite."""
    with pytest.raises(OperatorError):
        payload_of("boiler-7", [word], NOW_MS)


def test_a_good_payload_is_expected_in_the_window_of_its_time():
    """Each metric is one reading; its window closes when the allowed lateness is over."""
    found = foretold(payload_of("boiler-7", ["temperature=21.5", "running=true"], NOW_MS - 1_500))
    assert found.refused is None
    assert [reading.metric for reading in found.readings] == ["running", "temperature"]
    assert {reading.bucket_ms for reading in found.readings} == {1_763_699_940_000}
    assert {reading.closes_ms for reading in found.readings} == {1_763_700_010_000}


@pytest.mark.parametrize(
    ("payload", "reason", "metrics"),
    [
        (b"{", "not_json", []),
        (b'{"metrics": {"temperature": "hot", "pressure": 3}}', "not_a_number", ["pressure"]),
        (b'{"metrics": {}}', "no_metrics", []),
        (b'{"device_id": "pump-1", "metrics": {"t": 1}}', "device_mismatch", []),
        (b'{"ts": 253402300000000, "metrics": {"t": 1}}', "timestamp_in_future", []),
        (b'{"ts": 1763700000, "metrics": {"t": 1}}', "timestamp_too_old", []),
    ],
)
def test_a_refusal_is_foretold_with_its_reason(payload, reason, metrics):
    """Whole or in part, with the reason that the dead letter will have."""
    found = foretold(payload)
    assert found.refused is not None
    assert found.refused.startswith(f"{reason}: ")
    assert [reading.metric for reading in found.readings] == metrics
    assert "refuse" in announcement(found, NOW_MS)[0]


@given(st.integers(-(10**14), 10**14), st.sampled_from([1, 60, 300, 86_400]))
def test_a_window_holds_its_reading(event_ms, length_secs):
    """Its start is at or before the event time, its end after it; windows are aligned to the epoch."""
    bucket_ms, closes_ms = window_of(WindowSettings(length_secs=length_secs, allowed_lateness_secs=10), event_ms)
    assert bucket_ms <= event_ms < bucket_ms + length_secs * 1_000
    assert bucket_ms % (length_secs * 1_000) == 0
    assert closes_ms == bucket_ms + length_secs * 1_000 + 10_000


def test_what_is_said_tells_late_from_on_time():
    """An open minute has a time to wait for; a closed one is said to be closed."""
    on_time = announcement(foretold(payload_of("boiler-7", ["t=1"], NOW_MS)), NOW_MS)
    late = announcement(foretold(payload_of("boiler-7", ["t=1"], NOW_MS - 200_000)), NOW_MS)
    assert "closes in 1m 10s" in on_time[0]
    assert "late" in late[0]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1763700000123", 1_763_700_000_123),
        ("2025-11-21T04:40:00Z", 1_763_700_000_000),
        ("2025-11-21T05:40:00+01:00", 1_763_700_000_000),
        ("2025-11-21 04:40:00.5", 1_763_700_000_500),
        ("-90s", NOW_MS - 90_000),
        ("+1.5m", NOW_MS + 90_000),
    ],
)
def test_times_are_read_as_people_write_them(text, ms):
    """Milliseconds, RFC 3339, UTC where no offset is said, and distances from now."""
    assert instant(text, NOW_MS) == ms


@pytest.mark.parametrize("text", ["yesterday", "12:00", ""])
def test_times_that_are_none_are_refused(text):
    """The message shows how to write one."""
    with pytest.raises(OperatorError, match="--ts"):
        instant(text, NOW_MS)


def test_the_topic_is_the_templates_with_its_captures_filled_in():
    """And its device id is composed as ingest composes it."""
    assert topic_of(Settings(), "boiler-7", {}) == "devices/boiler-7/telemetry"
    assert topic_of(BY_USER, "boiler-7", {"user": "ada"}) == "users/ada/devices/boiler-7/telemetry"
    found = foretold(b'{"metrics": {"t": 1}}', BY_USER, "users/ada/devices/boiler-7/telemetry")
    assert [reading.device_id for reading in found.readings] == ["ada/boiler-7"]


@pytest.mark.parametrize(
    ("settings", "device", "captures", "words"),
    [
        (BY_USER, "boiler-7", {}, "--capture user="),
        (Settings(), "boiler-7", {"user": "ada"}, "no {user}"),
        (Settings(), "a/b", {}, "'a/b'"),
        (Settings(), "", {}, "device_id"),
        (Settings(mqtt=MqttSettings(topic="sites/+/{device_id}")), "boiler-7", {}, "fill in"),
    ],
)
def test_a_topic_that_cannot_be_made_is_refused_in_words(settings, device, captures, words):
    """A capture missing, unknown, or with characters that no topic level holds."""
    with pytest.raises(OperatorError, match=words):
        topic_of(settings, device, captures)
