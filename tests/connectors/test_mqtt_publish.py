"""PUBLISH packets are read as MQTT 5 writes them, and nothing else is taken for one."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.mqtt_publish import Malformed, Publish, read_publish, write_pubacks
from infra.fleet import mqtt5


def text(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


# Every property that a PUBLISH may carry, content-type (3) left out.
others = st.one_of(
    st.builds(lambda n: b"\x01" + bytes([n]), st.integers(0, 1)),
    st.builds(lambda n: b"\x02" + struct.pack("!I", n), st.integers(0, 2**32 - 1)),
    st.builds(lambda n: b"\x23" + struct.pack("!H", n), st.integers(1, 2**16 - 1)),
    st.builds(lambda value: b"\x08" + text(value), st.binary(max_size=9)),
    st.builds(lambda value: b"\x09" + text(value), st.binary(max_size=9)),
    st.builds(lambda key, value: b"\x26" + text(key) + text(value), st.binary(max_size=9), st.binary(max_size=9)),
    st.builds(lambda n: b"\x0b" + varint(n), st.integers(1, 268_435_455)),
)


@given(
    topic=st.text(max_size=20),
    packet_id=st.none() | st.integers(1, 65_535),
    payload=st.binary(max_size=300),
    content_type=st.none() | st.text(max_size=10),
    before=st.lists(others, max_size=20),
    after=st.lists(others, max_size=3),
    dup=st.booleans(),
)
def test_what_was_written_is_read(
    topic: str,
    packet_id: int | None,
    payload: bytes,
    content_type: str | None,
    before: list[bytes],
    after: list[bytes],
    dup: bool,
) -> None:
    """Topic, packet id, payload and content type, whatever other properties stand around the last."""
    named = [] if content_type is None else [b"\x03" + text(content_type.encode())]
    properties = b"".join([*before, *named, *after])
    flags = 0x30 | (0x08 if dup else 0) | (0 if packet_id is None else 0x02)
    identifier = b"" if packet_id is None else struct.pack("!H", packet_id)
    body = text(topic.encode()) + identifier + varint(len(properties)) + properties + payload
    assert read_publish(flags, body) == Publish(packet_id, topic, payload, content_type, dup)


@given(flags=st.integers(0x30, 0x3F), body=st.binary(max_size=60))
@example(flags=0x32, body=b"")
@example(flags=0x32, body=b"\x00\x01t\x00\x01\x7f")
@example(flags=0x32, body=b"\x00\x01t\x00\x01\xff\xff\xff\xff\x7f")
def test_any_bytes_are_a_publish_or_malformed(flags: int, body: bytes) -> None:
    """No other exception: a broker that breaks the protocol is told so, and does not end the reader otherwise."""
    try:
        read_publish(flags, body)
    except Malformed:
        return


@given(body=st.binary(min_size=3, max_size=40), cut=st.integers(1, 40))
def test_a_property_that_runs_past_its_end_is_malformed(body: bytes, cut: int) -> None:
    """A string whose length reaches into the payload would read one as the other."""
    properties = b"\x03" + text(body)
    short = properties[: -min(cut, len(properties) - 1)]
    with pytest.raises(Malformed):
        read_publish(0x32, text(b"t") + b"\x00\x01" + varint(len(short)) + short + bytes(64))


def test_a_content_type_that_is_not_utf8_is_replaced() -> None:
    """The message must still be acknowledged one day, so it is read as far as it can be."""
    properties = b"\x03" + text(b"\xff")
    message = read_publish(0x32, text(b"t") + b"\x00\x01" + varint(len(properties)) + properties)
    assert message.content_type == "\ufffd"


@given(st.lists(st.integers(1, 65_535), max_size=20))
def test_pubacks_are_read_by_a_broker_in_order(packet_ids: list[int]) -> None:
    """Each says success."""
    read = mqtt5.Reader().feed(write_pubacks(packet_ids))
    assert read == [mqtt5.Puback(packet_id, 0) for packet_id in packet_ids]
