"""The wires between flows and servers: a TCP relay on loopback that can be cut, stalled and refused.

One thread of its own serves all wires. Each method returns when what it asks for has happened.
"""

import asyncio
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Self, TypeVar

from infra.chaos.kafka_addresses import Address, Conversation

T = TypeVar("T")

LOOPBACK: Final = "127.0.0.1"
CHUNK_BYTES: Final = 65_536
FRAME_BYTES_MAX: Final = 128 * 1024 * 1024
ANSWER_SECS_MAX: Final = 30.0


class Relay:
    """Use as a context; ``wire`` makes wires, which live as long as it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._wires: list[Wire] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for wire in self._wires:
            wire.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wire(self, server: Address, kafka: bool = False) -> "Wire":
        """A wire to ``server``; of Kafka also to every broker that it tells of."""
        made = Wire(self, server, kafka)
        self._wires.append(made)
        return made

    def call(self, made: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the relay's thread, and wait for its answer."""
        return asyncio.run_coroutine_threadsafe(made(), self._loop).result(ANSWER_SECS_MAX)


class Wire:
    """From a loopback port of its own to one server. ``address`` is where clients connect."""

    def __init__(self, relay: Relay, server: Address, kafka: bool) -> None:
        self._relay = relay
        self._kafka = kafka
        self._listening: dict[Address, asyncio.Server] = {}
        self._open: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._flowing, self._writable = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        self._writable.set()
        self.accepted = 0
        self.address: Final = relay.call(lambda: self._listen(server))

    def cut(self) -> None:
        """Cut every connection that is open now."""
        self._relay.call(self._cut)

    def stall(self, stalled: bool) -> None:
        """Let nothing through, either way, and break nothing; or let it go on."""
        self._relay.call(lambda: self._set(self._flowing, not stalled))

    def stall_writes(self, stalled: bool) -> None:
        """Of Kafka: let no record through, and answer all else: as where too few replicas are in sync."""
        self._relay.call(lambda: self._set(self._writable, not stalled))

    def refuse(self, refused: bool) -> None:
        """Cut every connection, and end each new one at once; or take them again."""
        self._relay.call(lambda: self._refuse(refused))

    def close(self) -> None:
        self._relay.call(self._close)

    async def _listen(self, server: Address) -> Address:
        if server not in self._listening:

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._accept(server, reader, writer)

            self._listening[server] = await asyncio.start_server(accept, LOOPBACK, 0, limit=2 * CHUNK_BYTES)
        port: int = self._listening[server].sockets[0].getsockname()[1]
        return LOOPBACK, port

    async def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _set(self, event: asyncio.Event, on: bool) -> None:
        if on:
            event.set()
        else:
            event.clear()

    async def _refuse(self, refused: bool) -> None:
        self._refusing = refused
        if refused:
            await self._cut()

    async def _close(self) -> None:
        self._flowing.set()
        self._writable.set()
        for server in self._listening.values():
            server.close()
        await self._cut()

    async def _accept(self, server: Address, near: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        with suppress(OSError):
            if not self._refusing:
                far, there = await asyncio.open_connection(*server, limit=2 * CHUNK_BYTES)
                self._open |= {client, there}
                await self._relay_both(near, client, far, there)
                self._open -= {client, there}
        client.transport.abort()

    async def _relay_both(
        self,
        near: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        far: asyncio.StreamReader,
        there: asyncio.StreamWriter,
    ) -> None:
        """Until one side ends; then the other is given what was said, and ended."""
        if self._kafka:
            talk = Conversation(self._listen, self._writable.wait)
            ways = [self._frames(near, there, talk.request), self._frames(far, client, talk.answer)]
        else:
            ways = [self._bytes(near, there), self._bytes(far, client)]
        going = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        for one in going:
            one.cancel()
        for writer in (client, there):
            with suppress(OSError):
                writer.close()

    async def _bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while said := await reader.read(CHUNK_BYTES):
                await self._pass(writer, said)

    async def _frames(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        """Kafka's messages, whole: a length and so many bytes."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                assert 0 <= size <= FRAME_BYTES_MAX, "this is not Kafka's protocol in the clear"
                frame = await reader.readexactly(size)
                frame = await look(frame)
                await self._pass(writer, struct.pack(">i", len(frame)) + frame)

    async def _pass(self, writer: asyncio.StreamWriter, said: bytes) -> None:
        await self._flowing.wait()
        writer.write(said)
        await writer.drain()
