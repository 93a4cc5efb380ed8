"""The publisher's MQTT 5: its bytes are gmqtt's, and a broker's refusals and limits are heard."""

import asyncio
import contextlib
import itertools
import struct
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from gmqtt.client import Message
from gmqtt.mqtt.package import LoginPackageFactor, PublishPacket
from gmqtt.mqtt.utils import IdGenerator
from hypothesis import given
from hypothesis import strategies as st

from infra.fleet import mqtt5
from infra.fleet.publisher import FRUITLESS_MAX, Fates, Publisher
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

GMQTT = SimpleNamespace(proto_name=b"MQTT", proto_ver=5)


@given(st.text(min_size=1, max_size=300), st.binary(max_size=40_000), st.none() | st.just("application/json"))
def test_a_publish_is_the_one_gmqtt_would_send(topic, payload, content_type):
    """Same bytes for any topic and payload, whatever the length of the remaining length."""
    protocol = SimpleNamespace(**vars(GMQTT), id_generator=IdGenerator(max=60_000))
    message = Message(topic, payload, qos=1, **({"content_type": content_type} if content_type else {}))
    packet_id, expected = PublishPacket.build_package(message, protocol)
    assert expected == mqtt5.publish(topic, packet_id, payload, content_type)


@pytest.mark.parametrize("secret", [None, "", "päss"])
@pytest.mark.parametrize("user", ["ada", ""])
def test_a_connect_is_the_one_gmqtt_would_send(user, secret):
    """Same bytes with and without user and password, empty ones and those beyond ASCII too."""
    password = None if secret is None else secret.encode()
    for clean in (True, False):
        expected = LoginPackageFactor.build_package(
            b"me", user.encode(), password, clean, 30, GMQTT, session_expiry_interval=3_600
        )
        assert expected == mqtt5.connect("me", 30, 3_600, clean, user, secret)


PACKETS = [
    (b"\x20\x03\x00\x00\x00", mqtt5.Connack(False, 0)),
    (b"\x20\x02\x00\x01", mqtt5.Connack(False, 1)),  # of a broker that speaks 3.1.1 only
    (
        b"\x20\x1b\x01\x00\x18\x21\x00\x0a\x27\x00\x00\x10\x00\x13\x00\x05\x26\x00\x01k\x00\x01v\x25\x00\x12\x00\x01x",
        mqtt5.Connack(True, 0, receive_max=10, packet_bytes_max=4_096, keepalive_secs=5),
    ),
    (b"\x40\x02\x12\x34", mqtt5.Puback(0x1234, 0)),
    (b"\x40\x03\x00\x01\x10", mqtt5.Puback(1, 0x10)),
    (b"\x40\x04\x00\x01\x97\x00", mqtt5.Puback(1, 0x97)),
    (b"\xd0\x00", mqtt5.Other(mqtt5.PINGRESP, 0)),
    (b"\xe0\x02\x8b\x00", mqtt5.Other(mqtt5.DISCONNECT, 0x8B)),
]


@given(
    st.lists(st.sampled_from(PACKETS), max_size=12).flatmap(
        lambda picked: st.tuples(
            st.just(picked),
            st.lists(st.integers(0, sum(len(data) for data, _ in picked)), max_size=8),
        )
    )
)
def test_packets_are_read_however_the_socket_cuts_them(drawn):
    """What comes in any pieces is read as the packets it is made of, in order."""
    picked, cuts = drawn
    stream = b"".join(data for data, _ in picked)
    edges = [0, *sorted(cuts), len(stream)]
    reader, packets = mqtt5.Reader(), []
    for low, high in itertools.pairwise(edges):
        packets += reader.feed(stream[low:high])
    assert packets == [packet for _, packet in picked]


@given(st.binary(max_size=64))
def test_bytes_that_are_not_mqtt_are_malformed_and_nothing_else(data):
    """No bytes of a peer raise anything but ``Malformed``."""
    with contextlib.suppress(mqtt5.Malformed):
        mqtt5.Reader().feed(data)


class ScriptedBroker:
    """A peer that answers as told, for what real brokers do too rarely: refuse, limit, hang up."""

    def __init__(self, connack: bytes, answer: Callable[[int, bytes], bytes | None]) -> None:
        self.connack = connack
        self.answer = answer  # of packet id and first byte; None hangs up
        self.unanswered_max = 0
        self.connections = 0

    async def __aenter__(self) -> "ScriptedBroker":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                length, shift = 0, 0
                while (byte := (await reader.readexactly(1))[0]) & 0x80:
                    length, shift = length | (byte & 0x7F) << shift, shift + 7
                body = await reader.readexactly(length | byte << shift)
                if first == 0x10:
                    writer.write(self.connack)
                elif first & 0xF0 == 0x30:
                    topic_end = 2 + struct.unpack_from("!H", body)[0]
                    answer = self.answer(struct.unpack_from("!H", body, topic_end)[0], first)
                    if answer is None:
                        break
                    writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        writer.close()


def puback(packet_id: int, reason: int = 0) -> bytes:
    return b"\x40\x03" + struct.pack("!HB", packet_id, reason)


class Told:
    """What a publisher told about the fate of messages."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.refused: list[tuple[int, int]] = []
        self.resent: list[int] = []

    @property
    def fates(self) -> Fates:
        def refused(numbers: Sequence[int], reason: int) -> None:
            self.refused += [(number, reason) for number in numbers]

        return Fates(self.acked.extend, refused, self.resent.extend)


async def publish_all(broker: ScriptedBroker, payloads: Sequence[bytes], wanted: int = 1, **options) -> Told:
    told = Told()
    publisher = Publisher(MqttSettings(url=broker.url), told.fates, client_id="me", **options)
    await publisher.open()
    try:
        number = 0
        while number < len(payloads):
            part = payloads[number : number + await publisher.room(wanted)]
            publisher.send(number, [("t", payload) for payload in part])
            number += len(part)
        assert await publisher.drained(10)
    finally:
        await publisher.close()
    return told


def test_a_refusing_puback_is_no_acknowledgement():
    """A PUBACK with a reason of 0x80 or more is told as refused, with the reason; one below it as acknowledged."""

    async def scenario() -> Told:
        reasons = {0: 0x97, 1: 0x10, 2: 0x00}
        async with ScriptedBroker(PACKETS[0][0], lambda id_, _: puback(id_, reasons[id_ % 3])) as broker:
            return await publish_all(broker, [b"x"] * 6)

    told = asyncio.run(scenario())
    assert told.refused == [(2, 0x97), (5, 0x97)]  # packet ids count from 1
    assert told.acked == [0, 1, 3, 4]


def test_the_brokers_receive_maximum_is_kept():
    """Never more unacknowledged messages than the CONNACK allows, where the publisher itself would allow more."""

    async def scenario() -> int:
        waiting: list[int] = []
        most = 0

        def answer(packet_id: int, _: int) -> bytes:
            nonlocal most
            waiting.append(packet_id)
            most = max(most, len(waiting))
            if len(waiting) < 3:
                return b""
            answers = b"".join(map(puback, waiting))
            waiting.clear()
            return answers

        async with ScriptedBroker(b"\x20\x06\x00\x00\x03\x21\x00\x03", answer) as broker:
            await publish_all(broker, [b"x"] * 30, in_flight_max=100)
        return most

    assert asyncio.run(scenario()) == 3


def test_the_next_message_does_not_wait_for_the_whole_window():
    """A broker that holds back its PUBACKs until it hears more (Nagle's algorithm) hears more."""

    async def scenario() -> Told:
        waiting: list[int] = []

        def answer(packet_id: int, _: int) -> bytes:
            waiting.append(packet_id)
            some = len(waiting) if packet_id == 30 else len(waiting) // 3  # of a full window the oldest only
            return b"".join(puback(waiting.pop(0)) for _ in range(some))

        async with ScriptedBroker(b"\x20\x06\x00\x00\x03\x21\x00\x03", answer) as broker:
            return await asyncio.wait_for(publish_all(broker, [b"x"] * 30, wanted=3), 10)

    assert asyncio.run(scenario()).acked == list(range(30))


def test_a_message_above_the_brokers_limit_is_refused_without_being_sent():
    """The others go on; the broker would have closed the connection over it."""

    async def scenario() -> Told:
        async with ScriptedBroker(b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x40", lambda id_, _: puback(id_)) as broker:
            return await publish_all(broker, [b"small", b"x" * 100, b"small"])

    told = asyncio.run(scenario())
    assert told.refused == [(1, 0x95)]
    assert told.acked == [0, 2]


@pytest.mark.parametrize("session_present", [True, False])
def test_what_was_in_flight_is_sent_again_in_order_and_marked_where_the_session_is_there(session_present):
    """After a hang-up all unacknowledged messages come again in their order, with DUP exactly where the session is."""

    async def scenario() -> tuple[Told, list[tuple[int, bool]]]:
        seen: list[tuple[int, bool]] = []

        def answer(packet_id: int, first: int) -> bytes | None:
            seen.append((packet_id, bool(first & mqtt5.DUP)))
            if len(seen) == 5:
                broker.connack = b"\x20\x03" + bytes([session_present]) + b"\x00\x00"
                return None
            return b"" if len(seen) < 5 else puback(packet_id)

        async with ScriptedBroker(PACKETS[0][0], answer) as broker:
            return await publish_all(broker, [b"x"] * 5), seen

    told, seen = asyncio.run(scenario())
    assert seen == [(i, False) for i in range(1, 6)] + [(i, session_present) for i in range(1, 6)]
    assert told.resent == told.acked == [0, 1, 2, 3, 4]


def test_a_broker_that_hangs_up_on_every_message_is_given_up_in_words():
    """No endless loop of connecting and sending what it will not have: an ``OperatorError`` that says so."""

    async def scenario() -> int:
        async with ScriptedBroker(PACKETS[0][0], lambda *_: None) as broker:
            with pytest.raises(OperatorError, match="without acknowledging"):
                await publish_all(broker, [b"x"])
            return broker.connections

    assert asyncio.run(scenario()) == FRUITLESS_MAX


@pytest.mark.parametrize(
    ("reason", "words"), [(0x86, "bad user name or password"), (0x84, "MQTT 5"), (1, "MQTT 5"), (0x99, "payload")]
)
def test_a_refused_connection_is_an_operators_error_in_words(reason, words):
    """The reason code of the CONNACK is said in words."""

    async def scenario() -> None:
        async with ScriptedBroker(b"\x20\x03\x00" + bytes([reason]) + b"\x00", lambda *_: None) as broker:
            with pytest.raises(OperatorError, match=words):
                await publish_all(broker, [])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host", "looks like mqtt://"),
        ("mqtt://", "looks like mqtt://"),
        ("mqtt://host:port", "looks like mqtt://"),
        ("mqtt://ada:hush@host", "credentials"),
        ("ada:hush@host", "looks like mqtt://"),
    ],
)
def test_a_wrong_url_is_an_operators_error_and_repeats_no_secret(url, words):
    """The message shows what a URL looks like, and nothing that stands before an @."""

    async def scenario() -> None:
        await Publisher(MqttSettings(url=url), Told().fates, client_id="me").open()

    with pytest.raises(OperatorError, match=words) as caught:
        asyncio.run(scenario())
    assert "hush" not in str(caught.value)
