"""What a wire to Kafka understands of what is said: who is where, and who writes.

A cluster tells its clients where the brokers are; that is replaced, so that they stay on the wire. Of each connection
the requests are noted, and in the answers to Metadata and FindCoordinator every (host, port) is exchanged for that of a
wire to it. All else passes untouched. Field by field as in https://kafka.apache.org/protocol.html, Metadata up to
version 13 and FindCoordinator up to 6.
(Not exchanged: the new leader that Produce and Fetch name where one has moved; a client then goes round the wire.)
"""

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

Address = tuple[str, int]
Exchange = Callable[[Address], Awaitable[Address]]

PRODUCE: Final = 0
METADATA: Final = 3
COORDINATOR: Final = 10
_FLEXIBLE_FROM: Final = {METADATA: 9, COORDINATOR: 3}


@dataclass
class Conversation:
    """One connection: which answers are to be changed, by their correlation ids."""

    exchange: Exchange
    may_write: Callable[[], Awaitable[object]]  # returns when a record may be let through
    _asked: dict[int, tuple[int, int]] = field(default_factory=dict)

    async def request(self, frame: bytes) -> bytes:
        """A request, when it may pass; ``frame`` is without its length."""
        key, version, correlation = struct.unpack_from(">hhi", frame)
        if key in _FLEXIBLE_FROM:
            self._asked[correlation] = (key, version)
        if key == PRODUCE:
            await self.may_write()
        return frame

    async def answer(self, frame: bytes) -> bytes:
        """The answer as the client is to have it."""
        (correlation,) = struct.unpack_from(">i", frame)
        asked = self._asked.pop(correlation, None)
        return frame if asked is None else await _Answer(frame, *asked).exchanged(self.exchange)


class _Answer:
    """Copies an answer field by field, up to the last address; the rest as it is."""

    def __init__(self, frame: bytes, key: int, version: int) -> None:
        self._frame = frame
        self._key = key
        self._version = version
        self._flexible = version >= _FLEXIBLE_FROM[key]
        self._at = 0
        self._out = bytearray()

    async def exchanged(self, exchange: Exchange) -> bytes:
        self._copy(4)
        if self._flexible:
            self._tags()
        if self._key == METADATA:
            await self._metadata(exchange)
        else:
            await self._coordinators(exchange)
        return bytes(self._out) + self._frame[self._at :]

    async def _metadata(self, exchange: Exchange) -> None:
        if self._version >= 3:
            self._copy(4)  # throttle
        for _ in range(self._length()):
            self._copy(4)  # node
            await self._address(exchange)
            if self._version >= 1:
                self._text()  # rack
            if self._flexible:
                self._tags()

    async def _coordinators(self, exchange: Exchange) -> None:
        if self._version >= 1:
            self._copy(4)  # throttle
        if self._version >= 4:
            for _ in range(self._length()):
                self._text()  # key
                self._copy(4)  # node
                await self._address(exchange)
                self._copy(2)  # error
                self._text()
                self._tags()
            return
        self._copy(2)  # error
        if self._version >= 1:
            self._text()
        self._copy(4)  # node
        await self._address(exchange)

    async def _address(self, exchange: Exchange) -> None:
        host = self._read_text()
        (port,) = struct.unpack_from(">i", self._frame, self._at)
        self._at += 4
        if port > 0:  # there is no coordinator yet
            host, port = await exchange((host, port))
        encoded = host.encode()
        self._out += _varint(len(encoded) + 1) if self._flexible else struct.pack(">h", len(encoded))
        self._out += encoded + struct.pack(">i", port)

    def _copy(self, size: int) -> None:
        self._out += self._frame[self._at : self._at + size]
        self._at += size

    def _length(self) -> int:
        start = self._at
        if self._flexible:
            length = self._read_varint() - 1
        else:
            (length,) = struct.unpack_from(">i", self._frame, self._at)
            self._at += 4
        self._out += self._frame[start : self._at]
        return int(length)

    def _read_text(self) -> str:
        if self._flexible:
            size = self._read_varint() - 1
        else:
            (size,) = struct.unpack_from(">h", self._frame, self._at)
            self._at += 2
        start = self._at
        self._at += max(size, 0)
        return self._frame[start : self._at].decode()

    def _text(self) -> None:
        start = self._at
        self._read_text()
        self._out += self._frame[start : self._at]

    def _tags(self) -> None:
        start = self._at
        for _ in range(self._read_varint()):
            self._read_varint()
            size = self._read_varint()
            self._at += size
        self._out += self._frame[start : self._at]

    def _read_varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._frame[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
