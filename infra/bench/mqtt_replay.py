"""A loopback MQTT server that only replays: PUBLISH frames made beforehand, as fast as they are acknowledged.

Rule: it costs as little as can be, so that what is measured is the client. It serves one client, keeps nothing, and
answers CONNECT, SUBSCRIBE, UNSUBSCRIBE and PINGREQ with the bytes that say yes. A packet id is used again only after
its acknowledgement; the client's receive maximum is kept to.
"""

import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final

from infra.fleet import mqtt5

PACKET_IDS: Final = 65_535
SEGMENTS: Final = 16
CONNECT, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ = 0x10, 0x40, 0x80, 0xA0, 0xC0
WAIT_SECS_MAX: Final = 120.0

Message = tuple[str, bytes, str | None]
"""Topic, payload, content type."""


class Replay:
    """Sends ``total`` messages, ``messages`` over and over, to the client that subscribes. ``total`` is rounded down to
    whole segments. Times are of ``time.perf_counter``."""

    def __init__(self, messages: Sequence[Message], total: int, receive_max: int = PACKET_IDS) -> None:
        size = max(receive_max // SEGMENTS, 1)
        frames = (
            mqtt5.publish(topic, packet_id, payload, content_type)
            for packet_id, (topic, payload, content_type) in enumerate(
                (messages[i % len(messages)] for i in range(SEGMENTS * size)), 1
            )
        )
        self._segments = [b"".join(next(frames) for _ in range(size)) for _ in range(SEGMENTS)]
        self._size = size
        self.total = total // size * size
        self.acknowledged = 0
        self.began = self.ended = 0.0
        self._go, self._subscribed, self._finished = threading.Event(), threading.Event(), threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def await_subscribed(self) -> None:
        assert self._subscribed.wait(WAIT_SECS_MAX), "nobody subscribed"

    def run(self, secs_max: float) -> float:
        """Send everything and wait for the last acknowledgement: the seconds between."""
        self._go.set()
        assert self._finished.wait(secs_max), f"{self.acknowledged} of {self.total} acknowledged in {secs_max} s"
        assert self.acknowledged == self.total, f"{self.acknowledged} acknowledged, {self.total} sent"
        return self.ended - self.began

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = _Reader()
        while not self._go.is_set():  # handshake, and pings while the measurement is prepared
            connection.settimeout(0.02)
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                continue
            if not data:
                return
            connection.sendall(self._answers(reader.feed(data)))
        connection.setblocking(False)
        self.began = time.perf_counter()
        self._replay(connection, reader)

    def _replay(self, connection: socket.socket, reader: "_Reader") -> None:
        sent, at, segment = 0, 0, memoryview(self._segments[0])
        size, total, window = self._size, self.total, SEGMENTS * self._size
        selector = selectors.DefaultSelector()
        selector.register(connection, selectors.EVENT_READ)
        writing, answers = False, b""
        while True:
            if not at and answers:  # between two packets
                answers = answers[connection.send(answers) :]
            may_send = sent < total and (at or sent + size - self.acknowledged <= window)
            if may_send != writing:
                writing = may_send
                selector.modify(connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0))
            for _, events in selector.select():
                if events & selectors.EVENT_READ:
                    try:
                        data = connection.recv(262_144)
                    except ConnectionResetError:
                        return  # the client was stopped
                    if not data:
                        return
                    answers += self._answers(reader.feed(data))
                    self.acknowledged, reader.pubacks = self.acknowledged + reader.pubacks, 0
                    if self.acknowledged >= total and not self._finished.is_set():
                        self.ended = time.perf_counter()
                        self._finished.set()
                if events & selectors.EVENT_WRITE:
                    at += connection.send(segment[at : at + 262_144])
                    if at == len(segment):
                        at, sent = 0, sent + size
                        segment = memoryview(self._segments[sent // size % SEGMENTS])

    def _answers(self, packets: list[tuple[int, bytes]]) -> bytes:
        said = b""
        for kind, body in packets:
            if kind == CONNECT:
                said += b"\x20\x03\x00\x00\x00"
            elif kind == SUBSCRIBE:
                said += b"\x90\x04" + body[:2] + b"\x00\x01"
                self._subscribed.set()
            elif kind == UNSUBSCRIBE:
                said += b"\xb0\x04" + body[:2] + b"\x00\x11"
            elif kind == PINGREQ:
                said += b"\xd0\x00"
        return said


class _Reader:
    """Counts PUBACKs, and gives out what else a client sends, as (kind, body)."""

    def __init__(self) -> None:
        self.pubacks = 0
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        data = self._rest + data
        for length in (4, 6):  # all of them PUBACKs, without and with reason and properties
            count, left = divmod(len(data), length)
            whole = data[: count * length] if left else data
            if count and whole[::length] == b"\x40" * count and whole[1::length] == bytes([length - 2]) * count:
                self.pubacks += count
                self._rest = data[count * length :]
                return []
        return self._one_by_one(data)

    def _one_by_one(self, data: bytes) -> list[tuple[int, bytes]]:
        at, others = 0, []
        while at + 2 <= len(data):
            length, shift, start = 0, 0, at + 1
            while start < len(data):
                byte = data[start]
                length, shift, start = length | (byte & 0x7F) << shift, shift + 7, start + 1
                if byte < 0x80:
                    break
            else:
                break
            if start + length > len(data):
                break
            if data[at] == PUBACK:
                self.pubacks += 1
            else:
                others.append((data[at] & 0xF0, data[start : start + length]))
            at = start + length
        self._rest = data[at:]
        return others
