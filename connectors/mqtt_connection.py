"""One connection to the MQTT broker, on gmqtt: opened once, lost once, never reused.

Rule: a gmqtt ``Client`` lives as long as one connection. gmqtt could reconnect by itself, but then an acknowledgement
taken on one connection can go out on the next, where its packet id means another message.

gmqtt connects, subscribes, keeps the connection alive and says goodbye, all by its public calls. Messages and their
acknowledgements pass it by on a tapped wire (``mqtt_wire``); where there is none, they take gmqtt's own, slower way
(``mqtt_handover``).
"""

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Literal, Protocol

from gmqtt import Client, Subscription
from gmqtt.mqtt.handler import MQTTConnectError

from connectors import mqtt_address
from connectors.mqtt_address import Address
from connectors.mqtt_handover import Handover
from connectors.mqtt_packets import CONNACK, DISCONNECT, PINGRESP, Packet, Publishes
from connectors.mqtt_publish import Malformed, Publish, write_pubacks
from connectors.mqtt_wire import PINGREQ, TappedLoop, Wire
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

log = logging.getLogger("ionwax.mqtt")
# gmqtt logs each of its steps, a lost connection with a traceback; what an operator needs to know is logged by ours.
logging.getLogger("gmqtt").setLevel(logging.CRITICAL)

OPEN_SECS_MAX: Final = 10.0
NEVER_RECONNECT: Final = {"reconnect_retries": -2}  # -1 is for ever, 0 is once
KEEP_RETAINED: Final = 1  # retained messages are sent when the subscription is new, not at each start
SESSION_TAKEN_OVER: Final = 0x8E
CLOSE_SECS_MAX: Final = 1.0
LAST_ANSWER_SECS_MAX: Final = 4.0  # a broker that is busy has read all by then; one that is frozen is not waited for
QUESTION: Final = "ionwax/question"  # a topic to which nobody subscribes; to unsubscribe from it is answered
KEEPALIVE: Final = "keepalive"
Asker = asyncio.Future[None] | Literal["keepalive"] | None  # who waits for an answer; None is ``on_answer``


class Events(Protocol):
    """What a connection tells its owner, in the event loop's thread, in the order of the wire."""

    def on_connect(self, *, session_present: bool) -> None: ...
    def on_publish(self, message: Publish) -> None: ...
    def on_publishes(self, messages: Publishes) -> None: ...
    def on_answer(self) -> None: ...


class Refused(Exception):
    """The connection could not be opened; ``transient`` where trying again may help."""

    def __init__(self, error: OperatorError, *, transient: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.transient = transient


class Connection:
    """One connection of client ``worker``. All methods are for the event loop's thread."""

    def __init__(self, settings: MqttSettings, worker: str, address: Address, events: Events) -> None:
        self._settings = settings
        self._address = address
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._handover = Handover(events.on_publish)
        self._askers: deque[Asker] = deque()  # questions sent and not answered, in order
        self._lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._subscribed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._broken: OperatorError | None = None
        self._goodbye = 0
        self.answered_last = False  # the broker has read all that was said, up to ``close``
        self._forgotten: asyncio.Future[None] | None = None
        self._breath: asyncio.TimerHandle | None = None
        self._client = self._prepare(worker)

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Connect and be accepted. Raises ``Refused``."""
        connecting = asyncio.ensure_future(
            self._client.connect(
                self._address.host,
                self._address.port,
                ssl=context or False,
                keepalive=self._settings.keepalive_secs,
            )
        )
        tapped = self._loop if isinstance(self._loop, TappedLoop) else None
        try:
            if tapped is not None:
                tapped.tap = self._tap
            await self._first(connecting)
        finally:
            connecting.cancel()
            if tapped is not None:
                tapped.tap = None

    @property
    def by_wire(self) -> bool:
        """Whether messages come over the wire, and not by gmqtt's own way."""
        return self._wire is not None

    async def subscribe(self, topic_filter: str, *, backlog: bool) -> None:
        """Subscribe with QoS 1. Raises ``Refused``.

        With a ``backlog`` the answer may take as long as that: rumqttd holds its SUBACK back while its window is full.
        """
        self._client.subscribe(Subscription(topic_filter, qos=1, retain_handling_options=KEEP_RETAINED))
        granted: int = await self._first(self._subscribed, None if backlog else OPEN_SECS_MAX)
        if granted != 1:
            raise Refused(mqtt_address.not_subscribed(self._address, topic_filter, granted), transient=False)

    async def lost(self) -> None:
        """Wait until the connection is gone. Raises ``Refused`` where another cannot do better."""
        reason = await asyncio.shield(self._lost)
        if self._broken is not None:
            raise Refused(self._broken, transient=False)
        if reason == SESSION_TAKEN_OVER:
            raise Refused(
                OperatorError(
                    f"Another process connected to {self._address} with the same client id and took the session over. "
                    "Run one ingest with one mqtt.client_id. This one stops; what it had not acknowledged went over."
                ),
                transient=False,
            )

    def forget(self, topic_filter: str) -> "asyncio.Future[None]":
        """Unsubscribe; done when the broker has said yes, behind all that it sent before."""
        self._forgotten = self._loop.create_future()
        if self._wire is None:
            self._askers.append(self._forgotten)
        self._client.unsubscribe(topic_filter)
        return self._forgotten

    async def close(self, *, end_session: bool = False) -> None:
        """Send what is written, wait until the broker has read it, say goodbye. The session stays, or is ended."""
        if self._breath is not None:
            self._breath.cancel()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(LAST_ANSWER_SECS_MAX):
                await self._handover.settle()
                if not self._lost.done() and self._client.is_connected:
                    # Brokers that read in one thread and work in another may leave what stands before a DISCONNECT.
                    self._ask(answered := self._loop.create_future())
                    await asyncio.wait({answered, self._lost}, return_when=asyncio.FIRST_COMPLETED)
                    self.answered_last = answered.done()
        with suppress(OSError, TimeoutError, AttributeError):  # AttributeError: there never was a transport
            async with asyncio.timeout(CLOSE_SECS_MAX):
                await self._client.disconnect(**({"session_expiry_interval": 0} if end_session else {}))
        if not self._lost.done():
            self._lost.set_result(0)
        await self._handover.end()

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Send PUBACKs for messages of this connection, in order of receipt."""
        if self._wire is None:
            self._handover.acknowledge(packet_ids)
        else:
            self._wire.transport.write(write_pubacks(packet_ids))

    def ask(self) -> None:
        """Send a question that the broker answers behind all that it sent before; then ``on_answer`` is called."""
        self._ask(None)

    async def answers(self, secs_max: float) -> bool:
        """Whether the broker answers a question on this connection in time."""
        if self._lost.done():
            return False
        self._ask(answered := self._loop.create_future())
        await asyncio.wait({answered, self._lost}, timeout=secs_max, return_when=asyncio.FIRST_COMPLETED)
        return answered.done() and not self._lost.done()

    def pause(self) -> None:
        """Read no further, but draw breath each half keepalive: a gmqtt that hears nothing closes the connection.

        Without a wire it does nothing.
        """
        if self._wire is not None:
            self._wire.transport.pause_reading()
            if self._breath is None:
                self._breath = self._loop.call_later(self._settings.keepalive_secs / 2, self.resume)

    def resume(self) -> None:
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
            if not self._lost.done() and self._wire is not None:
                self._wire.transport.resume_reading()

    def _prepare(self, worker: str) -> Client:
        client = Client(
            worker,
            clean_session=False,
            optimistic_acknowledgement=False,
            session_expiry_interval=self._settings.session_expiry_secs,
            receive_maximum=self._settings.receive_max,
        )
        client.set_config(NEVER_RECONNECT)
        if self._settings.username is not None:
            client.set_auth_credentials(self._settings.username, self._settings.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_message = self._handover.on_message
        return client

    async def _first(self, wanted: "asyncio.Future[Any]", secs_max: float | None = OPEN_SECS_MAX) -> Any:
        """Wait for ``wanted``, the end of the connection or of patience, and put into words what went wrong."""
        await asyncio.wait({wanted, self._lost}, timeout=secs_max, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            try:
                return wanted.result()
            except MQTTConnectError as error:
                code = error._code
                raise Refused(
                    mqtt_address.refused(self._address, code), transient=code in mqtt_address.TRANSIENT
                ) from None
            except OSError as error:
                raise Refused(mqtt_address.unreachable(self._address, error), transient=True) from None
        if self._lost.done():
            raise Refused(mqtt_address.hung_up(self._address), transient=True)
        raise Refused(mqtt_address.unreachable(self._address, TimeoutError()), transient=True)

    # What gmqtt calls.

    def _on_connect(self, _client: Client, session_present: int, _code: int, _properties: dict[str, Any]) -> None:
        if self._wire is None:  # else it was heard before the messages that came with it
            self._events.on_connect(session_present=bool(session_present))

    def _on_disconnect(self, _client: Client, packet: bytes, _error: Exception | None = None) -> None:
        self._handover.lost()
        if not self._lost.done():
            self._lost.set_result(self._goodbye or (packet[0] if packet else 0))

    def _on_subscribe(self, _client: Client, _mid: int, granted: tuple[int, ...], _properties: dict[str, Any]) -> None:
        if not self._subscribed.done():
            self._subscribed.set_result(granted[0])

    def _on_unsubscribe(self, *_answer: Any) -> None:
        if self._wire is None:
            self._loop.call_soon(self._answered)  # behind the tasks of the messages that came before
        elif self._forgotten is not None and not self._forgotten.done():
            self._forgotten.set_result(None)

    # What the wire calls.

    def _tap(self, gmqtts: Any) -> Wire:
        self._wire = Wire(gmqtts, self)
        return self._wire

    def heard_publishes(self, messages: Publishes) -> None:
        if not self._lost.done():
            self._events.on_publishes(messages)

    def heard_packet(self, packet: Packet) -> None:
        kind = packet.first & 0xF0
        if kind == PINGRESP:
            self._answered()
        elif kind == CONNACK and len(packet.body) > 1 and packet.body[1] == 0:
            self._events.on_connect(session_present=bool(packet.body[0] & 1))
        elif kind == DISCONNECT and packet.body:
            self._goodbye = packet.body[0]  # it may come together with the end, and gmqtt does not read it any more

    def heard_nonsense(self, error: Malformed) -> None:
        self._broken = OperatorError(f"MQTT broker at {self._address} breaks the protocol: {error}.")

    def pinged(self) -> None:
        self._askers.append(KEEPALIVE)

    def _answered(self) -> None:
        asked_by = self._askers.popleft() if self._askers else KEEPALIVE
        if asked_by is None:
            self._events.on_answer()
        elif isinstance(asked_by, asyncio.Future) and not asked_by.done():
            asked_by.set_result(None)

    def _ask(self, asked_by: "Asker") -> None:
        self._askers.append(asked_by)
        if self._wire is not None:
            self._wire.transport.write(PINGREQ)
        else:
            self._client.unsubscribe(QUESTION)


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
