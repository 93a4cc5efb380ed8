"""Devices for tests: they publish over MQTT at QoS 1 and return when the broker has acknowledged everything."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from infra.fleet import mqtt5

DEADLINE_SECS = 60.0


@dataclass(frozen=True)
class Sent:
    topic: str
    payload: bytes
    content_type: str | None = None


def publish(url: str, messages: Sequence[Sent], client_id: str = "test-devices") -> None:
    """Publish ``messages`` in order, as fast as the broker's receive maximum allows, and wait for every PUBACK."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=DEADLINE_SECS) as connection:
        connection.sendall(mqtt5.connect(client_id, 60, 0, True, None, None))
        reader = mqtt5.Reader()
        connack = _read(connection, reader)[0]
        assert isinstance(connack, mqtt5.Connack)
        assert connack.reason == 0
        window = min(connack.receive_max, 100)  # rumqttd drops a publisher that goes beyond 100
        for start in range(0, len(messages), window):
            part = messages[start : start + window]
            packets = [mqtt5.publish(m.topic, i + 1, m.payload, m.content_type) for i, m in enumerate(part)]
            connection.sendall(b"".join(packets))
            _await_pubacks(connection, reader, len(part))


def _await_pubacks(connection: socket.socket, reader: mqtt5.Reader, count: int) -> None:
    while count:
        for packet in _read(connection, reader):
            if isinstance(packet, mqtt5.Puback):
                assert packet.reason < mqtt5.REFUSED_FROM
                count -= 1


def _read(connection: socket.socket, reader: mqtt5.Reader) -> list[mqtt5.Packet]:
    packets: list[mqtt5.Packet] = []
    while not packets:
        data = connection.recv(65_536)
        assert data, "the broker closed the connection of the test's publisher"
        packets = reader.feed(data)
    return packets
