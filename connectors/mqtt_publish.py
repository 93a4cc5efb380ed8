"""MQTT 5 PUBLISH and PUBACK as bytes: what arrives is read, what is owed is written.

Rule: pure; a body goes in, a ``Publish`` comes out (MQTT 5, section 3.3). It is read here and not by gmqtt since gmqtt
builds a dictionary of lists a message, and passes over a message whose ``content-type`` is not UTF-8, which then
blocks its place in the broker's window for ever.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

CONTENT_TYPE: Final = 0x03
_FIXED_BYTES: Final = {0x01: 1, 0x02: 4, 0x23: 2}  # payload format, message expiry, topic alias
_STRINGS: Final = {0x03: 1, 0x08: 1, 0x09: 1, 0x26: 2}  # content type, response topic, correlation data, user property
_SUBSCRIPTION_ID: Final = 0x0B


class Publish(NamedTuple):
    """One message as received. ``packet_id`` is None at QoS 0, where no acknowledgement is owed."""

    packet_id: int | None
    topic: str
    payload: bytes
    content_type: str | None
    dup: bool


class Malformed(ValueError):
    """Bytes that are no PUBLISH: the broker breaks the protocol."""


def read_publish(flags: int, body: bytes) -> Publish:
    """Read the variable header and payload of a PUBLISH; ``flags`` is its first byte. Raises ``Malformed``."""
    try:
        topic_end = 2 + (body[0] << 8 | body[1])
        topic = body[2:topic_end].decode(errors="replace")
        packet_id, at = None, topic_end
        if flags & 0x06:
            packet_id, at = body[at] << 8 | body[at + 1], at + 2
        length, at = (body[at], at + 1) if body[at] < 0x80 else _read_varint(body, at)
        payload_start = at + length
        if payload_start > len(body):
            raise Malformed("properties run past the end of the packet")
        content_type = _read_content_type(body, at, payload_start) if length else None
    except IndexError:
        raise Malformed(f"a PUBLISH of {len(body)} bytes ends too early") from None
    return Publish(packet_id, topic, body[payload_start:], content_type, bool(flags & 0x08))


def write_pubacks(packet_ids: Sequence[int]) -> bytes:
    """PUBACK packets of success, in order: four bytes each (a reason of 0 may be left out, section 3.4.2.1)."""
    packets: bytes = (0x4002_0000 | np.array(packet_ids, dtype=np.uint32)).astype(">u4").tobytes()
    return packets


def read_content_type(properties: bytes) -> str | None:
    """The content type among the properties of a PUBLISH, without the length before them. Raises ``Malformed``."""
    try:
        return _read_content_type(properties, 0, len(properties))
    except IndexError:
        raise Malformed(f"properties of {len(properties)} bytes end too early") from None


def _read_content_type(body: bytes, at: int, end: int) -> str | None:
    found: str | None = None
    while at < end:
        identifier, at = body[at], at + 1
        if identifier in _STRINGS:
            for _ in range(_STRINGS[identifier]):
                start = at + 2
                at = start + (body[at] << 8 | body[at + 1])
            if identifier == CONTENT_TYPE:
                found = body[start:at].decode(errors="replace")
        elif identifier in _FIXED_BYTES:
            at += _FIXED_BYTES[identifier]
        elif identifier == _SUBSCRIPTION_ID:
            _, at = _read_varint(body, at)
        else:
            raise Malformed(f"property {identifier:#x} does not belong to a PUBLISH")
    if at != end:
        raise Malformed("a property runs past the end of the properties")
    return found


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in (0, 7, 14, 21):
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed("a variable byte integer is longer than four bytes")
