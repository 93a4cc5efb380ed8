"""Publishes over MQTT 5 at QoS 1: pipelined, bounded, through outages.

Guarantee: every message given to ``send`` is acknowledged, refused by the broker with a reason, or still in flight, and
whoever asked is told which. After a lost connection what is in flight is sent again, marked DUP where the session is
still there, so a message may arrive twice and is never forgotten. At most ``in_flight_max`` messages (or the
broker's receive maximum, if less) are held; ``send`` takes no more.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from infra.fleet import mqtt5
from infra.fleet.connection import Connection, address
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

CONNECT_SECS_MAX: Final = 5.0
BACKOFF_SECS_MAX: Final = 2.0
FRUITLESS_MAX: Final = 8
"""Connections lost one after the other without a single acknowledgement: the broker then dislikes what it is sent."""


@dataclass(slots=True)
class InFlight:
    """A message that is neither acknowledged nor refused yet."""

    number: int
    packet: bytearray


@dataclass(frozen=True, slots=True)
class Fates:
    """Whom to tell what became of messages, by the numbers they were given to ``send`` with."""

    acked: Callable[[Sequence[int]], None]
    refused: Callable[[Sequence[int], int], None]
    resent: Callable[[Sequence[int]], None] = lambda _: None


class Publisher:
    """One connection at a time to one broker, in one event loop: ``open``, ``room``, ``send``, ``close``."""

    def __init__(
        self,
        mqtt: MqttSettings,
        fates: Fates,
        *,
        client_id: str,
        content_type: str | None = None,
        in_flight_max: int = 4_000,
        outage_secs_max: float = 300.0,
    ) -> None:
        self._mqtt = mqtt
        self._fates = fates
        self._client_id = client_id
        self._content_type = content_type
        self._in_flight_max = min(in_flight_max, 60_000)  # packet ids are 16 bits; most are to be free
        self._outage_secs_max = outage_secs_max
        self._in_flight: dict[int, InFlight] = {}
        self._waiting: deque[int] = deque()  # packet ids to write again on this connection
        self._written = 0  # and not acknowledged, on this connection
        self._packet_id = 0
        self._fruitless = 0
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._closing = False
        self.reconnects = 0

    async def open(self) -> None:
        """Connect. Raises ``OperatorError`` where the broker is away or refuses: no patience the first time."""
        connection = await self._connect(clean=True)
        self._keeper = asyncio.create_task(self._keep(connection))

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def _window(self) -> int:
        broker = self._connection.connack.receive_max if self._connection else 0
        return min(self._in_flight_max, broker)

    async def room(self, wanted: int = 1) -> int:
        """How many messages ``send`` takes now; waits until it is ``wanted``, or a small part of all there can be.

        Not all: a broker holds its next PUBACKs back until it hears from us again (Nagle's algorithm: mosquitto), and
        to wait for them made 20 messages in 40 ms of its window of 20.

        Raises ``OperatorError`` once an outage has lasted ``outage_secs_max``, or the broker refuses for good.
        """
        while True:
            self._raise_failure()
            free = self._window - len(self._in_flight)
            if self.connected and free >= min(wanted, 1 + self._window // 64):
                return free
            await self._change()

    def send(self, first: int, messages: Sequence[tuple[str, bytes]]) -> None:
        """Send (topic, payload) messages numbered from ``first`` on; no more than ``room`` said."""
        assert self._connection
        assert len(messages) <= self._window - len(self._in_flight)
        packets, too_large = [], []
        for number, (topic, payload) in enumerate(messages, first):
            packet_id = self._free_id()
            packet = mqtt5.publish(topic, packet_id, payload, self._content_type)
            if len(packet) > self._connection.connack.packet_bytes_max:
                too_large.append(number)
                continue
            self._in_flight[packet_id] = InFlight(number, packet)
            packets.append(packet)
        self._written += len(packets)
        self._connection.write(b"".join(packets))
        if too_large:
            self._fates.refused(too_large, 0x95)

    async def drained(self, timeout_secs: float) -> bool:
        """Wait until nothing is in flight; False where that did not come about in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_secs):
                while self._in_flight:
                    self._raise_failure()
                    await self._change()
        return not self._in_flight

    async def close(self) -> None:
        """Leave the broker. What is still in flight stays without an answer."""
        self._closing = True
        if self._connection:
            self._connection.write(mqtt5.DISCONNECT_FOR_GOOD)
            self._connection.close()
        if self._keeper:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError, OperatorError):
                await self._keeper

    # What the connection tells

    def _answered(self, pubacks: Sequence[mqtt5.Puback]) -> None:
        acked: list[int] = []
        for puback in pubacks:
            message = self._in_flight.pop(puback.packet_id, None)
            if message is None:
                continue  # of a copy that was acknowledged before
            self._written -= 1
            if puback.reason < mqtt5.REFUSED_FROM:
                acked.append(message.number)
            else:
                self._fates.refused([message.number], puback.reason)
        self._fruitless = 0
        if acked:
            self._fates.acked(acked)
        self._pump()
        self._changed.set()

    # How it stays connected

    async def _keep(self, connection: Connection) -> None:
        while not self._closing:
            await connection.lost()
            self._connection = None
            if self._closing:
                return
            self._fruitless += 1
            if self._fruitless >= FRUITLESS_MAX and self._in_flight:
                size = max(len(message.packet) for message in self._in_flight.values())
                raise OperatorError(
                    f"{self._mqtt.url} closed the connection {FRUITLESS_MAX} times without acknowledging anything"
                    f" ({connection.why}); the largest message in flight has {size:,} bytes: is that above its limit?"
                )
            connection = await self._again()
            self.reconnects += 1

    async def _again(self) -> Connection:
        """Reconnect with patience, and queue all that is in flight to be sent again."""
        backoff_secs, deadline = 0.1, asyncio.get_running_loop().time() + self._outage_secs_max
        while True:
            await asyncio.sleep(backoff_secs)
            backoff_secs = min(backoff_secs * 1.6, BACKOFF_SECS_MAX)
            try:
                connection = await self._connect(clean=False)
                break
            except OperatorError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
        self._written = 0
        self._waiting = deque(self._in_flight)
        if connection.connack.session_present:
            for message in self._in_flight.values():
                message.packet[0] |= mqtt5.DUP
        self._pump()
        self._changed.set()
        return connection

    def _pump(self) -> None:
        """Write again what a reconnect left to be written, as far as the window goes."""
        resent, packets = [], []
        while self._waiting and self._written < self._window:
            message = self._in_flight.get(self._waiting.popleft())
            if message:
                self._written += 1
                resent.append(message.number)
                packets.append(message.packet)
        if packets and self._connection:
            self._fates.resent(resent)
            self._connection.write(b"".join(packets))

    async def _connect(self, clean: bool) -> Connection:
        host, port, secure = address(self._mqtt)
        loop = asyncio.get_running_loop()
        connection = Connection(self._answered)
        try:
            async with asyncio.timeout(CONNECT_SECS_MAX):
                await loop.create_connection(lambda: connection, host, port, ssl=secure)
                await connection.hello(self._mqtt, self._client_id, clean)
        except ssl.SSLCertVerificationError as error:
            raise OperatorError(
                f"the certificate of {self._mqtt.url} is not trusted ({error.verify_message}); is a CA file missing?"
            ) from None
        except (OSError, TimeoutError, mqtt5.Malformed) as error:
            connection.close()
            why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
            raise OperatorError(
                f"no MQTT broker answers at {self._mqtt.url} ({why}): is it running, is the URL right?"
            ) from error
        if reason := connection.connack.reason:
            connection.close()
            said = mqtt5.REASONS.get(reason, "it does not speak MQTT 5" if reason == 1 else f"reason {reason:#04x}")
            raise OperatorError(f"the MQTT broker at {self._mqtt.url} refuses the connection: {said}")
        self._connection = connection
        return connection

    def _free_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % 65_535 + 1
            if self._packet_id not in self._in_flight:
                return self._packet_id

    async def _change(self) -> None:
        self._changed.clear()
        change = asyncio.create_task(self._changed.wait())
        watched = {change, self._keeper} if self._keeper else {change}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        change.cancel()

    def _raise_failure(self) -> None:
        if (
            self._keeper
            and self._keeper.done()
            and not self._keeper.cancelled()
            and (error := self._keeper.exception())
        ):
            raise error
