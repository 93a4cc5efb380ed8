"""A broker's bytes become the same packets however they are cut, and PUBLISH is read as one by one."""

import struct
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.mqtt_packets import Packet, PacketReader, Publishes
from connectors.mqtt_publish import Malformed, Publish, read_publish


def text(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def whole(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def publish(flags: int, topic: bytes, packet_id: int, properties: bytes, payload: bytes) -> bytes:
    identifier = struct.pack("!H", packet_id) if flags & 0x06 else b""
    return whole(0x30 | flags, text(topic) + identifier + varint(len(properties)) + properties + payload)


content_type = st.binary(max_size=30).map(lambda name: b"\x03" + text(name))
user_property = st.binary(max_size=60).map(lambda name: b"\x26" + text(name) + text(b"v"))  # two are beyond 127 bytes
payload = st.binary(max_size=40) | st.sampled_from([bytes(200), bytes(16_500)])  # lengths of one, two and three bytes
publishes = st.builds(
    publish,
    st.sampled_from([0x02, 0x02, 0x02, 0x0A, 0x03, 0x00]),  # QoS 1 mostly, DUP, RETAIN, QoS 0
    st.sampled_from([b"t", b"devices/boiler-7/telemetry", b"", "é".encode(), b"\xff"]),
    st.integers(1, 65_535),
    st.just(b"") | content_type | st.lists(content_type | user_property, max_size=4).map(b"".join),
    payload,
)
others = st.sampled_from(
    [
        b"\xd0\x00",
        whole(0x20, b"\x01\x00\x00"),
        whole(0xE0, b"\x8e"),
        whole(0xE0, b""),
        whole(0x90, b"\x00\x01\x00\x01"),
    ]
)
packets = st.lists(publishes | others, max_size=30)


def flat(items: list[Publishes | Packet]) -> list[Publish | Packet]:
    found: list[Publish | Packet] = []
    for item in items:
        if isinstance(item, Packet):
            found.append(item)
        else:
            columns = (item.packet_ids, item.topics, item.payloads, item.content_types, item.dups)
            found += [Publish(*row) for row in zip(*columns, strict=True)]
    return found


def one_by_one(packet: bytes) -> Publish | Packet:
    start = next(at for at in range(1, 5) if packet[at] < 0x80) + 1
    if packet[0] & 0xF0 == 0x30:
        return read_publish(packet[0], packet[start:])
    return Packet(packet[0], packet[start:], packet)


@given(packets, st.lists(st.integers(1, 400), max_size=40))
@example([publish(0x02, b"t", 1, b"", b"x")] * 3, [1] * 40)
def test_however_the_bytes_are_cut_the_packets_are_the_same(sent: list[bytes], cuts: list[int]) -> None:
    """And each PUBLISH is what ``read_publish`` reads in it."""
    data, reader, found = b"".join(sent), PacketReader(), []
    for size in [*cuts, len(data)]:
        found += reader.feed(data[:size])
        data = data[size:]
    assert flat(found) == [one_by_one(packet) for packet in sent]


@given(packets)
def test_what_follows_each_other_comes_as_one_run(sent: list[bytes]) -> None:
    """A run ends at a packet of another kind only: one lock and one call for hundreds of messages."""
    found = PacketReader().feed(b"".join(sent))
    assert not any(isinstance(a, Publishes) and isinstance(b, Publishes) for a, b in pairwise(found))


def cut_short(packet: bytes) -> bytes:
    """A PUBLISH whose length says less than its topic, packet id and properties take."""
    return packet[:1] + varint(4) + packet[2:6]


@given(st.sampled_from([b"\x26\x00", b"\x03\x00\x09abc", b"\x7e\x00", b"\x03\x00"]), st.integers(1, 3))
def test_properties_that_are_none_are_malformed(properties: bytes, times: int) -> None:
    """Each time they come: what is remembered of properties is never a failure."""
    packet = publish(0x02, b"t", 1, properties, b"payload")
    reader = PacketReader()
    for _ in range(times):
        with pytest.raises(Malformed):
            PacketReader().feed(packet)
        with pytest.raises(Malformed):
            reader.feed(packet)
        reader = PacketReader()


def test_lengths_that_lie_are_malformed() -> None:
    """A packet that ends within its topic, and a length of five bytes."""
    with pytest.raises(Malformed):
        PacketReader().feed(cut_short(publish(0x02, b"topic", 1, b"", b"x")))
    with pytest.raises(Malformed):
        PacketReader().feed(b"\x32\xff\xff\xff\xff\x01")


@given(st.binary(max_size=200))
def test_any_bytes_are_packets_or_malformed(data: bytes) -> None:
    """Never another error, and never a loop."""
    try:
        PacketReader().feed(data)
    except Malformed:
        return
