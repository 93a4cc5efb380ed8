"""The embedded broker does what `ingest` relies on, seen by a client that shares no code with ours."""

import shutil
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded.mqtt import Login, MqttBroker, Tls
from infra.embedded.ports import is_free
from tests.infra.mqtt_wire import V3, V5, MqttWire, Refused
from tests.infra.test_embedded_child import is_alive

pytestmark = pytest.mark.embedded
BAD_LOGIN = 0x86


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttBroker]:
    """A broker whose path has a space and a colon."""
    broker = MqttBroker(tmp_path_factory.mktemp("mqtt") / "a path: mqtt")
    broker.start()
    yield broker
    broker.stop()


def name() -> str:
    """A client id or topic that no other test uses."""
    return uuid.uuid4().hex


def numbered(count: int, size: int = 20) -> list[bytes]:
    return [str(number).encode().rjust(size) for number in range(count)]


@pytest.mark.parametrize("version", [V3, V5])
@pytest.mark.parametrize("size", [0, 150, 1_500_000])
def test_one_port_takes_both_versions_and_large_messages(broker: MqttBroker, version: int, size: int) -> None:
    """Published by either, received by version 5, byte for byte."""
    topic, payload = name(), bytes(range(256)) * (size // 256 + 1)
    with MqttWire(broker.port, name()) as receiver, MqttWire(broker.port, name(), version=version) as sender:
        receiver.subscribe(topic)
        sender.publish(topic, payload[:size])
        (received,) = receiver.receive(1)
    assert (received.topic, received.payload, received.qos) == (topic, payload[:size], 1)


def test_a_session_outlives_its_connection(broker: MqttBroker) -> None:
    """What came meanwhile is delivered, once."""
    client, topic, sent = name(), name(), numbered(500)
    with MqttWire(broker.port, client) as receiver:
        assert not receiver.session_present
        receiver.subscribe(topic)
    with MqttWire(broker.port, name()) as sender:
        sender.publish(topic, *sent)
    with MqttWire(broker.port, client) as receiver:
        assert receiver.session_present
        received = receiver.receive(500)
        receiver.acknowledge(*received)
        assert sorted(message.payload for message in received) == sent
        assert not any(message.dup for message in received)
        assert receiver.silence(0.3)


def test_exactly_what_was_not_acknowledged_comes_again_with_dup(broker: MqttBroker) -> None:
    """Also when acknowledged out of order."""
    client, topic = name(), name()
    with MqttWire(broker.port, client) as receiver, MqttWire(broker.port, name()) as sender:
        receiver.subscribe(topic)
        sender.publish(topic, *numbered(100))
        received = receiver.receive(100)
        done, left = received[1::2][::-1], received[::2]
        receiver.acknowledge(*done)
        receiver.publish(name(), b"")  # answered after the acknowledgements before it
    with MqttWire(broker.port, client) as receiver:
        again = receiver.receive(len(left))
        assert {message.payload for message in again} == {message.payload for message in left}
        assert all(message.dup for message in again)
        receiver.acknowledge(*again)
        assert receiver.silence(0.3)


def test_a_receive_window_is_not_overrun(broker: MqttBroker) -> None:
    """Ten of a hundred, until one is acknowledged."""
    topic = name()
    with MqttWire(broker.port, name(), receive_max=10) as receiver, MqttWire(broker.port, name()) as sender:
        receiver.subscribe(topic)
        sender.publish(topic, *numbered(100))
        received = receiver.receive(10)
        assert receiver.silence(0.3)
        receiver.acknowledge(received[0])
        receiver.receive(1)
        assert receiver.silence(0.3)


def test_full_windows_lost_again_and_again_use_up_no_packet_ids(broker: MqttBroker) -> None:
    """Four times 20,000 are more than the 65,535 there are."""
    client, topic, sent = name(), name(), numbered(20_000)
    with MqttWire(broker.port, client) as receiver:
        receiver.subscribe(topic)
    with MqttWire(broker.port, name(), timeout_secs=60) as sender:
        sender.publish(topic, *sent)
    for _ in range(4):
        with MqttWire(broker.port, client, timeout_secs=30) as receiver:
            received = receiver.receive(20_000)
    assert sorted(message.payload for message in received) == sent


def test_a_shared_subscription_gives_each_message_to_one(broker: MqttBroker) -> None:
    """And goes on when a member leaves for good."""
    topic, group = name(), name()
    first, second = (MqttWire(broker.port, name()) for _ in "12")
    sender = MqttWire(broker.port, name())
    for member in (first, second):
        member.subscribe(f"$share/{group}/{topic}")
    sender.publish(topic, *numbered(100))
    received = [*first.receive(50), *second.receive(50)]
    assert sorted(message.payload for message in received) == numbered(100)
    second.disconnect()
    with MqttWire(broker.port, name()) as third:
        third.subscribe(f"$share/{group}/{topic}")
        first.acknowledge(*received[:50])
        sender.publish(topic, b"later", b"later")
        assert not (first.silence(0.5) and third.silence(0.5))
    for wire in (first, sender):
        wire.drop()


@pytest.mark.parametrize("size", [pytest.param(150, id="small"), pytest.param(20_000, id="paged")])
def test_what_was_acknowledged_survives_a_kill(broker: MqttBroker, size: int) -> None:
    """The kill comes while a publisher has messages on their way; Artemis acknowledges them in another order."""
    client, topic = name(), name()
    with MqttWire(broker.port, client) as receiver:
        receiver.subscribe(topic)
    sender = MqttWire(broker.port, name(), timeout_secs=30)
    sent = {sender.send(topic, payload): payload for payload in numbered(3_000, size)}
    sender.wait_acknowledged(2_000)
    broker.kill()
    sender.drop()
    missing = {sent[packet_id] for packet_id in sender.acknowledged}
    broker.start()
    with MqttWire(broker.port, client, timeout_secs=60) as receiver:
        assert receiver.session_present
        while missing:  # acknowledged on the way, or it hands out no more pages
            (message,) = receiver.receive(1)
            receiver.acknowledge(message)
            missing.discard(message.payload)


def test_a_hundred_thousand_messages_wait_for_one_who_is_away(broker: MqttBroker) -> None:
    """More than the memory it is given."""
    client, topic, count = name(), name(), 100_000
    with MqttWire(broker.port, client) as receiver:
        receiver.subscribe(topic)
    with MqttWire(broker.port, name(), timeout_secs=60) as sender:
        for begin in range(0, count, 2_000):
            sender.publish(topic, *(str(number).rjust(800).encode() for number in range(begin, begin + 2_000)))
    seen: set[int] = set()
    with MqttWire(broker.port, client, receive_max=1_000, timeout_secs=60) as receiver:
        while len(seen) < count:
            received = receiver.receive(500)
            seen.update(int(message.payload) for message in received)
            receiver.acknowledge(*received)
    assert len(seen) == count


def test_stop_leaves_no_process_and_no_port(broker: MqttBroker) -> None:
    """Also with a client connected."""
    with MqttWire(broker.port, name()):
        pid, port = broker.pid, broker.port
        broker.stop()
    assert not is_alive(pid)
    assert is_free(port)
    broker.start()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A key and a certificate for localhost, signed by itself."""
    place = tmp_path_factory.mktemp("tls")
    key, certificate = place / "key.pem", place / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    argv += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    return Tls(certificate, key)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make certificates")
def test_login_and_tls(tmp_path: Path, certificate: Tls) -> None:
    """The right password over TLS is let in; a wrong one, none, and a connection without TLS are not."""
    broker = MqttBroker(tmp_path / "with a space", login=Login("device", "s3cret=:é"), tls=certificate)
    broker.start()
    trust = ssl.create_default_context(cafile=str(certificate.certificate))
    try:
        with MqttWire(broker.port, name(), username="device", password="s3cret=:é", tls=trust) as client:
            topic = name()
            client.subscribe(topic)
            client.publish(topic, b"secret")
            assert client.receive(1)[0].payload == b"secret"
        for username, password in (("device", "wrong"), (None, None), ("other", "s3cret=:é")):
            with pytest.raises(Refused) as refused:
                MqttWire(broker.port, name(), username=username, password=password, tls=trust)
            assert refused.value.args == (BAD_LOGIN,)
        with pytest.raises((ConnectionError, TimeoutError)):
            MqttWire(broker.port, name(), timeout_secs=2)
    finally:
        broker.stop()
