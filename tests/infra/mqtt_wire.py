"""A minimal MQTT client on a blocking socket: QoS 1, versions 3.1.1 and 5, every acknowledgement by hand.

Rule: it shares no code with gmqtt or our connectors, and does nothing by itself: no keepalive, no
reconnect, no acknowledgement. So a test decides what a broker gets, and sees all that it sends.
"""

import socket
import ssl
import struct
from types import TracebackType
from typing import NamedTuple, Self

V3, V5 = 4, 5
SESSION_SECS = 3600
_KEEPALIVE_SECS = 600  # not 0, which rumqttd refuses
_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 1, 2, 3, 4, 8, 9
_DISCONNECT = 14


class Publish(NamedTuple):
    """A message as it arrived."""

    topic: str
    payload: bytes
    packet_id: int
    qos: int
    dup: bool


class Refused(Exception):
    """The broker refused the connection or a packet with this reason code."""


class MqttWire:
    """One connection; `session_present` says what CONNACK said."""

    def __init__(
        self,
        port: int,
        client_id: str,
        *,
        version: int = V5,
        clean: bool = False,
        receive_max: int = 65_535,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_secs: float = 60,
    ) -> None:
        self._version = version
        self._buffer = bytearray()
        self._next_id = 0
        self.acknowledged: list[int] = []
        self.inbox: list[Publish] = []
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_secs)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        try:
            self._connect(client_id, clean, receive_max, username, password)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Close the connection without DISCONNECT, as a device out of reach would."""
        self._socket.close()

    def disconnect(self) -> None:
        """Leave in order; the session stays for SESSION_SECS."""
        self._send(_DISCONNECT, 0, b"\0\0" if self._version == V5 else b"")
        self._socket.close()

    def subscribe(self, topic: str) -> None:
        """At QoS 1; returns when the broker has granted it."""
        packet_id = self._packet_id()
        properties = b"\0" if self._version == V5 else b""
        self._send(_SUBSCRIBE, 2, struct.pack(">H", packet_id) + properties + _text(topic) + b"\1")
        suback = self._read_until(_SUBACK)
        if suback[-1] > 2:
            raise Refused(suback[-1])

    def publish(self, topic: str, *payloads: bytes) -> None:
        """Send at QoS 1 and return when all are acknowledged."""
        wanted = len(self.acknowledged) + len(payloads)
        for payload in payloads:
            self.send(topic, payload)
        self.wait_acknowledged(wanted)

    def send(self, topic: str, payload: bytes) -> int:
        """Send at QoS 1 without waiting; the packet id."""
        packet_id = self._packet_id()
        properties = b"\0" if self._version == V5 else b""
        self._send(_PUBLISH, 2, _text(topic) + struct.pack(">H", packet_id) + properties + payload)
        return packet_id

    def wait_acknowledged(self, count: int) -> None:
        """Return when `count` messages of this connection were acknowledged."""
        while len(self.acknowledged) < count:
            self._take(*self._read())

    def receive(self, count: int) -> list[Publish]:
        """The next `count` messages, not acknowledged; raises TimeoutError when they do not come."""
        while len(self.inbox) < count:
            self._take(*self._read())
        taken, self.inbox = self.inbox[:count], self.inbox[count:]
        return taken

    def silence(self, secs: float) -> bool:
        """Whether no message arrives for this long."""
        before = self._socket.gettimeout()
        self._socket.settimeout(secs)
        try:
            while not self.inbox:
                self._take(*self._read())
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(before)
        return False

    def acknowledge(self, *messages: Publish) -> None:
        self._socket.sendall(b"".join(struct.pack(">BBH", _PUBACK << 4, 2, m.packet_id) for m in messages))

    def _connect(
        self, client_id: str, clean: bool, receive_max: int, username: str | None, password: str | None
    ) -> None:
        flags = clean << 1 | (username is not None) << 7 | (password is not None) << 6
        body = _text("MQTT") + struct.pack(">BBH", self._version, flags, _KEEPALIVE_SECS)
        if self._version == V5:
            body += struct.pack(">BBIBH", 8, 0x11, SESSION_SECS, 0x21, receive_max)
        body += _text(client_id)
        body += b"".join(_text(value) for value in (username, password) if value is not None)
        self._send(_CONNECT, 0, body)
        connack = self._read_until(_CONNACK)
        if connack[1]:
            raise Refused(connack[1])
        self.session_present = bool(connack[0] & 1)
        self.connack = bytes(connack)

    def _packet_id(self) -> int:
        self._next_id = self._next_id % 65_535 + 1
        return self._next_id

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.sendall(bytes([kind << 4 | flags]) + _length(len(body)) + body)

    def _read_until(self, wanted: int) -> bytes:
        while True:
            kind, flags, body = self._read()
            if kind == wanted:
                return body
            self._take(kind, flags, body)

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _PUBACK:
            if len(body) > 2 and body[2] >= 0x80:
                raise Refused(body[2])
            self.acknowledged.append(int.from_bytes(body[:2], "big"))
        elif kind == _PUBLISH:
            self.inbox.append(self._publish(flags, body))
        else:
            raise Refused(f"packet of type {kind}: {body!r}")

    def _publish(self, flags: int, body: bytes) -> Publish:
        qos = flags >> 1 & 3
        end = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:end].decode()
        packet_id = int.from_bytes(body[end : end + 2], "big") if qos else 0
        end += 2 if qos else 0
        if self._version == V5:
            length, end = _read_length(body, end)
            end += length
        return Publish(topic, bytes(body[end:]), packet_id, qos, bool(flags & 8))

    def _read(self) -> tuple[int, int, bytes]:
        """The next packet; ConnectionError when the broker has closed."""
        while True:
            if len(self._buffer) >= 2:
                try:
                    length, start = _read_length(self._buffer, 1)
                except IndexError:
                    length, start = 1 << 30, 0
                if len(self._buffer) >= start + length:
                    first = self._buffer[0]
                    body = bytes(self._buffer[start : start + length])
                    del self._buffer[: start + length]
                    return first >> 4, first & 15, body
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise ConnectionError("the broker closed the connection")
            self._buffer += chunk


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def _length(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def _read_length(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """The variable length number at `at`, and where it ends; IndexError when it is not complete."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
