"""Topic templates: filters, captures, and what an operator can get wrong."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.decoding.topics import compile_topic
from schemas.errors import OperatorError

FILTERS = [
    ("devices/{device_id}/telemetry", "devices/+/telemetry"),
    ("users/{user}/devices/{device_id}/telemetry", "users/+/devices/+/telemetry"),
    ("/{device_id}", "/+"),
    ("{device_id}", "+"),
    ("site/+/{device_id}", "site/+/+"),
    ("plant", "plant"),
    ("a.b(c)*/{device_id}", "a.b(c)*/+"),
    ("$SYS/{device_id}", "$SYS/+"),
]


@pytest.mark.parametrize(("template", "wanted"), FILTERS)
def test_a_template_is_a_filter(template: str, wanted: str) -> None:
    """Captures subscribe to any one level; the rest is literal."""
    assert wanted == compile_topic(template).filter


@given(user=st.text(min_size=0, max_size=5), device=st.text(min_size=0, max_size=5))
def test_a_capture_is_exactly_one_level(user: str, device: str) -> None:
    """Any text without a slash is captured as it is; with one the topic is another."""
    template = compile_topic("u/{user}/d/{device_id}", "{user}-{device_id}")
    captures = template.match(f"u/{user}/d/{device}")
    if "/" in user + device:
        assert captures is None or {"user": user, "device_id": device} != captures
    else:
        assert captures == {"user": user, "device_id": device}
        assert template.device_id(captures) == f"{user}-{device}"


def test_nothing_but_the_template_matches() -> None:
    """Dots are dots, more levels or fewer are another topic, a newline at the end is one more character."""
    template = compile_topic("a.b/{device_id}")
    assert {"device_id": "x\n"} == template.match("a.b/x\n")
    assert [None] * 4 == [template.match(topic) for topic in ("axb/x", "a.b", "a.b/x/", "/a.b/x")]


def test_unused_captures_are_headers() -> None:
    """In the order of the topic; a wildcard without a name is nowhere."""
    assert ("site", "user") == compile_topic("{site}/+/{user}/{device_id}").headers
    assert ("site",) == compile_topic("{site}/+/{user}/{device_id}", "{user}.{device_id}").headers


WRONG = [
    ("", "{device_id}", "mqtt.topic: give a topic"),
    ("a\0", "{device_id}", "mqtt.topic: give a topic"),
    ("devices/#", "{device_id}", "# is not taken"),
    ("devices/{device_id}/#", "{device_id}", "# is not taken"),
    ("devices/a+/{device_id}", "{device_id}", "+ stands for a whole level"),
    ("devices/x{device_id}", "{device_id}", "'x{device_id}' is no capture"),
    ("devices/{device_id", "{device_id}", "'{device_id' is no capture"),
    ("devices/{Device}", "{device_id}", "is no capture"),
    ("devices/{device-id}", "{device_id}", "is no capture"),
    ("devices/{}", "{device_id}", "is no capture"),
    ("{device_id}/{device_id}", "{device_id}", "{device_id} stands twice"),
    ("$share/group/{device_id}", "{device_id}", "leave out $share"),
    ("{tick}/{device_id}", "{device_id}", "a header of this name marks ticks"),
    ("devices/{device_id}", "all", "names no capture"),
    ("devices/{device_id}", "{user}/{device_id}", "mqtt.topic has no {user}"),
    ("devices/{device_id}", "{device_id}}", "has a brace that closes nothing"),
]


@pytest.mark.parametrize(("topic", "device_id", "words"), WRONG)
def test_a_wrong_template_is_the_operators_to_put_right(topic: str, device_id: str, words: str) -> None:
    """One message, which names the setting."""
    with pytest.raises(OperatorError, match=re.escape(words)) as caught:
        compile_topic(topic, device_id)
    assert str(caught.value).startswith("mqtt.")
