"""MQTT topics: a template with named captures, as the filter to subscribe to and as what each topic names.

    users/{user}/devices/{device_id}/telemetry   →   filter users/+/devices/+/telemetry
    device_id_template {user}/{device_id}        →   users/ada/devices/boiler-7/telemetry is "ada/boiler-7"

A capture is a whole topic level, and has a name like a Python variable. Captures that ``device_id_template`` does
not use travel as headers of the record. A template that captures no ``device_id`` leaves it to the payload.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.errors import OperatorError

_CAPTURE: Final = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
DEVICE_ID: Final = "device_id"
_RESERVED: Final = frozenset({"tick"})  # headers that mean something else to those who read the log
TOPIC_BYTES_MAX: Final = 65_535  # MQTT 5, section 1.5.4


@dataclass(frozen=True, slots=True)
class TopicTemplate:
    """A topic template, understood.

    - ``filter``: what to subscribe to.
    - ``pattern``: matches a topic as a whole, with a group a capture.
    - ``device_id_template``: the device id, with captures in braces.
    - ``headers``: captures that it does not use, in the order of the topic.
    """

    filter: str
    pattern: re.Pattern[str]
    device_id_template: str
    headers: tuple[str, ...]

    @property
    def needs_payload(self) -> bool:
        """Whether the device id, or a part of it, is in the payload alone."""
        return DEVICE_ID in _CAPTURE.findall(self.device_id_template) and DEVICE_ID not in self.pattern.groupindex

    def match(self, topic: str) -> Mapping[str, str] | None:
        """The captures of ``topic``; None where it is none of this template."""
        found = self.pattern.fullmatch(topic)
        return None if found is None else found.groupdict()

    def device_id(self, captures: Mapping[str, str]) -> str:
        """The device id of a topic's captures. ``device_id`` among them may be the payload's word."""
        return _CAPTURE.sub(lambda capture: captures[capture[1]], self.device_id_template)


def compile_topic(template: str, device_id_template: str = "{device_id}") -> TopicTemplate:
    """The template of ``mqtt.topic``. Raises ``OperatorError`` where nobody could subscribe, or no id be made."""
    levels = template.split("/")
    if not template or len(template.encode()) > TOPIC_BYTES_MAX or "\0" in template:
        raise OperatorError("mqtt.topic: give a topic, for example devices/{device_id}/telemetry")
    if levels[0] == "$share":
        raise OperatorError("mqtt.topic: leave out $share/…; mqtt.clients above one shares the subscription by itself")
    captures: list[str] = []
    for level in levels:
        captures += _captures_in(level)
    for name in captures:
        if captures.count(name) > 1:
            raise OperatorError(f"mqtt.topic: {{{name}}} stands twice; give each capture a name of its own")
    used = _used_by(device_id_template, captures)
    return TopicTemplate(
        filter="/".join("+" if level.startswith("{") else level for level in levels),
        pattern=re.compile("/".join(_pattern(level) for level in levels), re.DOTALL),
        device_id_template=device_id_template,
        headers=tuple(name for name in captures if name not in used),
    )


def _captures_in(level: str) -> list[str]:
    """The capture that ``level`` is, if it is one."""
    if capture := _CAPTURE.fullmatch(level):
        if capture[1] in _RESERVED:
            raise OperatorError(
                f"mqtt.topic: {level} cannot be a capture, a header of this name marks ticks; rename it"
            )
        return [capture[1]]
    if "#" in level:
        raise OperatorError("mqtt.topic: # is not taken; name each level, for example plant/{line}/{device_id}")
    if "{" in level or "}" in level:
        raise OperatorError(
            f"mqtt.topic: {level!r} is no capture; one is a whole level in braces, of a-z, 0-9 and _, as {{device_id}}"
        )
    if "+" in level and level != "+":
        raise OperatorError(f"mqtt.topic: {level!r}: + stands for a whole level only")
    return []


def _used_by(device_id_template: str, captures: list[str]) -> set[str]:
    used = set(_CAPTURE.findall(device_id_template))
    if not used:
        raise OperatorError("mqtt.device_id_template: names no capture, so all devices would be one; use {device_id}")
    if re.search("[{}]", _CAPTURE.sub("", device_id_template)):
        raise OperatorError(f"mqtt.device_id_template: {device_id_template!r} has a brace that closes nothing")
    for name in sorted(used - {DEVICE_ID}):
        if name not in captures:
            raise OperatorError(f"mqtt.device_id_template: mqtt.topic has no {{{name}}}; it has {captures or 'none'}")
    return used


def _pattern(level: str) -> str:
    if level == "+":
        return "[^/]*"
    capture = _CAPTURE.fullmatch(level)
    return f"(?P<{capture[1]}>[^/]*)" if capture else re.escape(level)
