"""The wire between gmqtt and its socket, tapped: PUBLISH is read and PUBACK written here, gmqtt sees to the rest.

Rule: nothing of gmqtt is touched, private or public. gmqtt asks asyncio for a connection (``loop.create_connection``);
the event loop it runs in, ours, gives it one that a ``Wire`` sits on. What is not PUBLISH reaches gmqtt byte by byte,
and all that gmqtt writes goes out. A gmqtt that connects by other means goes round the wire: no ``Wire`` is made then,
and ``mqtt_connection`` receives by gmqtt's own ``on_message``.

Why: receiving a message and acknowledging it late costs gmqtt 0.8 some fifteen microseconds, and this one.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from connectors.mqtt_packets import Packet, PacketReader, Publishes
from connectors.mqtt_publish import Malformed

PINGREQ: Final = b"\xc0\x00"


class Listener(Protocol):
    """Who taps a wire; called in the event loop's thread, in the order of the wire."""

    def heard_publishes(self, messages: Publishes) -> None: ...
    def heard_packet(self, packet: Packet) -> None: ...
    def heard_nonsense(self, error: Malformed) -> None: ...
    def pinged(self) -> None: ...


class Wire(asyncio.Protocol):
    """One connection: the protocol that asyncio sees, around the one that gmqtt brought."""

    def __init__(self, inner: Any, listener: Listener) -> None:
        self.inner = inner
        self._listener = listener
        self._reader = PacketReader()
        self.transport: Any = None
        self.gmqtts: Any = None  # the transport as gmqtt sees it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.gmqtts = _Overheard(transport, self._listener.pinged)
        self.inner.connection_made(self.gmqtts)

    def data_received(self, data: bytes) -> None:
        try:
            items = self._reader.feed(data)
        except Malformed as error:
            self._listener.heard_nonsense(error)
            self.transport.abort()
            return
        for item in items:
            if isinstance(item, Publishes):
                self._listener.heard_publishes(item)
            else:
                self._listener.heard_packet(item)
                self.inner.data_received(item.whole)

    def eof_received(self) -> bool | None:
        answer: bool | None = self.inner.eof_received()
        return answer

    def connection_lost(self, error: Exception | None) -> None:
        self.inner.connection_lost(error)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


class _Overheard:
    """A transport that tells when gmqtt, which keeps the connection alive, sends a PINGREQ."""

    def __init__(self, transport: Any, pinged: Callable[[], None]) -> None:
        self._transport = transport
        self._pinged = pinged

    def write(self, data: bytes) -> None:
        if data == PINGREQ:
            self._pinged()
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class TappedLoop(asyncio.SelectorEventLoop):
    """An event loop that puts a ``Wire`` on each connection it makes while somebody listens."""

    tap: Callable[[Any], Wire] | None = None

    async def create_connection(self, protocol_factory: Any, *arguments: Any, **options: Any) -> Any:
        if (tap := self.tap) is None:
            return await super().create_connection(protocol_factory, *arguments, **options)
        _, wire = await super().create_connection(lambda: tap(protocol_factory()), *arguments, **options)
        return wire.gmqtts, wire.inner
