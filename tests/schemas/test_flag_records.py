"""Flags as others see them, and the topics of alerts."""

import json
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.anomaly_flag_pb2 import AnomalyFlag
from schemas.errors import OperatorError
from schemas.flag_records import alerts, records, topic_of
from schemas.flags import Episode, Flag, Judged, Snapshot
from schemas.mqtt_filters import filter_of, overlap
from schemas.progress import Counts, Progress
from schemas.settings_file import load
from schemas.snapshot_bytes import decode, encode

MINUTE = 60_000
FLAG = Flag(5 * MINUTE, "a/b", "t", "hot", "critical", 0.75, 91.5, None, None, 90.0, "e1", "3", 0)


def judged(flags, episodes):
    return Judged(0, flags, episodes, (), Counts(), Progress.begin(0))


@given(device=st.text(min_size=1, max_size=20) | st.sampled_from(["a/b+c#d%e", "$SYS", "%pipeline", "+", "#", "\0"]))
def test_the_topic_of_an_alert_names_the_device_and_no_other(device):
    """Whatever it holds it is one level, without wildcards, and can be read back; the pipeline's level is nobody's."""
    topic = topic_of("alerts/{device_id}", device)
    assert unquote(topic.removeprefix("alerts/")) == device
    assert not set("+#\0") & set(topic)
    assert topic.count("/") == 1
    assert topic != topic_of("alerts/{device_id}", "") == "alerts/%pipeline"


def test_an_episode_that_opens_is_told_by_its_flag_and_one_that_closes_by_a_record_of_its_own():
    """OPEN once, UPDATE for the rest and for a revision of the opening minute, CLOSE in the window it ended with."""
    revised = FLAG._replace(score=0.0, value=70.0, revision=1)
    opened, closed = Episode("e1", FLAG, peak=0.75), Episode("e1", FLAG, 9 * MINUTE, "calm", 0.8)
    told = [
        AnomalyFlag.FromString(one.value) for one in records(judged([FLAG, revised], [opened, closed]), "t", MINUTE)
    ]
    assert [(one.phase, one.bucket, one.revision) for one in told] == [
        (AnomalyFlag.OPEN, 5 * MINUTE, 0),
        (AnomalyFlag.UPDATE, 5 * MINUTE, 1),
        (AnomalyFlag.CLOSE, 8 * MINUTE, 0),
    ]
    assert told[0].value == 91.5
    assert not told[0].HasField("expected")
    assert told[2].cause == "calm"
    assert not told[2].HasField("value")


def test_an_alert_says_what_was_against_what_was_allowed_and_has_a_key():
    """JSON; the key is the episode and the phase, and nothing of where or when it was made."""
    opened, closed = alerts(
        [Episode("e1", FLAG, peak=0.75), Episode("e1", FLAG, 9 * MINUTE, "calm", 0.8)], "alerts/{device_id}", MINUTE
    )
    said = json.loads(opened.payload)
    assert said["idempotency_key"] == "e1/open"
    assert (said["value"], said["upper"], said["opened_at"]) == (91.5, 90.0, "1970-01-01T00:05:00Z")
    assert json.loads(closed.payload)["idempotency_key"] == "e1/close"
    assert (opened.topic, opened.at_ms, closed.at_ms) == ("alerts/a%2Fb", 6 * MINUTE, 9 * MINUTE)
    assert "also" not in said


@given(order=st.permutations(range(4)))
def test_what_a_device_does_in_one_minute_is_one_alert(order):
    """The gravest first, then by score, whatever their order; another minute, device or phase is another alert."""
    flags = [
        FLAG._replace(metric="p", severity="info", score=0.9, episode_id="e1"),
        FLAG._replace(metric="q", severity="critical", score=0.5, episode_id="e2"),
        FLAG._replace(metric="r", severity="critical", score=0.6, episode_id="e3"),
        FLAG._replace(metric="s", severity="critical", score=0.5, episode_id="e4"),
    ]
    opened = [Episode(flag.episode_id, flag, peak=flag.score) for flag in flags]
    others = [
        Episode("e5", FLAG._replace(bucket=6 * MINUTE)),
        Episode("e6", FLAG._replace(device_id="b")),
        Episode("e2", flags[1], 6 * MINUTE, "calm", 0.5),
    ]
    together, *alone = alerts([opened[at] for at in order] + others, "alerts/{device_id}", MINUTE)
    said = json.loads(together.payload)
    assert (said["idempotency_key"], said["metric"], said["upper"]) == ("e3/open", "r", 90.0)
    assert [(one["episode_id"], one["metric"], one["upper"]) for one in said["also"]] == [
        ("e2", "q", 90.0),
        ("e4", "s", 90.0),
        ("e1", "p", 90.0),
    ]
    assert [json.loads(one.payload)["idempotency_key"] for one in alone] == ["e5/open", "e6/open", "e2/close"]


@pytest.mark.parametrize(
    ("one", "other", "some"),
    [
        ("alerts/+", "alerts/boiler-7", True),
        ("alerts/+", "+/+", True),
        ("alerts/+", "#", True),
        ("alerts/+", "alerts/#", True),
        ("alerts", "alerts/#", True),
        ("alerts/+", "$share/ionwax/+/+", True),
        ("alerts/+", "+/{}/telemetry", False),
        ("alerts/+", "devices/+/telemetry", False),
        ("alerts/+", "alerts/+/telemetry", False),
        ("$site/alerts/+", "#", False),
        ("$site/alerts/+", "+/alerts/+", False),
        ("$site/alerts/+", "$site/#", True),
        ("plant/+/alerts/+", "plant/line-1/#", True),
        ("+/+/alerts", "alerts/+", False),
    ],
)
def test_filters_that_meet_are_found(one, other, some):
    """MQTT 5, section 4.7, both ways round."""
    assert overlap(one, other) == overlap(other, one) == some


def test_a_template_is_the_filter_of_what_it_makes():
    """A capture is any one level."""
    assert filter_of("users/{user}/devices/{device_id}/telemetry") == "users/+/devices/+/telemetry"


@pytest.mark.parametrize("topic", ["{kind}/{device_id}", "alerts/{device_id}", "+/{device_id}"])
def test_an_ingest_that_would_hear_its_own_alerts_is_refused(tmp_path, topic):
    """With one message that names both; without alerts there is nothing to hear."""
    path = tmp_path / "settings.yaml"
    path.write_text(f'mqtt: {{topic: "{topic}"}}\n')
    with pytest.raises(OperatorError, match=r"mqtt\.topic would receive what is sent to flags\.alert_topic"):
        load(path, {})
    path.write_text(f'mqtt: {{topic: "{topic}"}}\nflags: {{alerts: false}}\n')
    assert not load(path, {}).flags.alerts


@pytest.mark.parametrize(
    "topic", ["alerts", "alerts/x{device_id}", "{device_id}/{device_id}", "a/+/{device_id}", "$a/{device_id}"]
)
def test_an_alert_topic_that_cannot_be_published_to_is_refused(tmp_path, topic):
    """The device is one whole level, once."""
    path = tmp_path / "settings.yaml"
    path.write_text(f'flags: {{alert_topic: "{topic}"}}\n')
    with pytest.raises(OperatorError, match="alert_topic"):
        load(path, {})


def test_a_snapshot_comes_back_to_the_bit():
    """Arrays of any shape and type, empty ones, NaN and -0.0 among them."""
    arrays = {
        "a": np.array([[0.0, -0.0, np.nan], [np.inf, 5e-324, 1.7e308]]),
        "b": np.zeros((3, 0), np.float64),
        "c": np.array([True, False]),
        "d": np.arange(7, dtype=np.uint8),
        "e": np.array([-(2**62), 2**62]),
        "f": np.arange(12, dtype=np.int32).reshape(2, 2, 3)[:, :, ::2],
    }
    kept = Snapshot(17, {"device_id": ["é💡"], "closed_until": None}, arrays)
    back = decode(17, encode(kept))
    assert back.facts == kept.facts
    assert list(back.arrays) == list(arrays)
    for name, array in arrays.items():
        assert (array.dtype, array.shape) == (back.arrays[name].dtype, back.arrays[name].shape)
        assert array.tobytes() == back.arrays[name].tobytes()
