"""One connection to the MQTT broker, on gmqtt: opened once, lost once, never reused.

Rule: a gmqtt ``Client`` lives as long as one connection. gmqtt could reconnect by itself, but then an acknowledgement
taken on one connection can go out on the next, where its packet id means another message.

gmqtt has no call for what this project rests on, so some private names of version 0.8.0 are used, all of them in this
file; ``check_gmqtt`` tests for them before anything connects.
"""

import asyncio
import inspect
import logging
import ssl
import time
from collections import deque
from importlib import metadata
from typing import Any, Final, Literal, Protocol

from gmqtt import Client, Subscription
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTConnectError, MqttPackageHandler
from gmqtt.mqtt.protocol import MQTTProtocol

from connectors import mqtt_address
from connectors.mqtt_address import Address
from connectors.mqtt_publish import Malformed, Publish, read_goodbye, read_publish
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
KEEPALIVE: Final = "keepalive"
Asker = asyncio.Future[None] | Literal["keepalive"] | None  # who waits for a PINGRESP; None is ``on_answer``


class Events(Protocol):
    """What a connection tells its owner, in the event loop's thread, in the order of the wire."""

    def on_connect(self, *, session_present: bool) -> None: ...
    def on_publish(self, message: Publish) -> None: ...
    def on_answer(self) -> None: ...


class Refused(Exception):
    """The connection could not be opened; ``transient`` where trying again may help."""

    def __init__(self, error: OperatorError, *, transient: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.transient = transient


def check_gmqtt() -> None:
    """Raise ``OperatorError`` unless the installed gmqtt has the names that this file relies on."""
    wanted: tuple[tuple[Any, str, int], ...] = (
        (MqttPackageHandler, "_handle_publish_packet", 3),
        (MqttPackageHandler, "_handle_pingresp_packet", 3),
        (MQTTConnection, "_send_ping_request", 1),
        (MQTTConnection, "send_package", 2),
        (MQTTProtocol, "data_received", 2),
    )
    for owner, name, parameters in wanted:
        function = getattr(owner, name, None)
        if function is None or len(inspect.signature(function).parameters) != parameters:
            raise OperatorError(
                f"gmqtt {metadata.version('gmqtt')} lacks {owner.__name__}.{name}: install gmqtt==0.8.0, as locked."
            )


class Connection:
    """One connection of client ``worker``. All methods are for the event loop's thread."""

    def __init__(self, settings: MqttSettings, worker: str, address: Address, events: Events) -> None:
        self._settings = settings
        self._address = address
        self._events = events
        self._pings: deque[Asker] = deque()  # sent and not answered, in order
        self._lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._subscribed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._broken: OperatorError | None = None
        self._last_data = b""
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
        try:
            await self._first(connecting)
        finally:
            connecting.cancel()
        self._client._connection._send_ping_request = self._ping_keepalive
        self._listen_for_goodbye(self._client._connection._protocol)

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

    async def close(self) -> None:
        """Send what is written, wait until the broker has read it, say goodbye. The session stays with the broker."""
        if self._breath is not None:
            self._breath.cancel()
        try:
            async with asyncio.timeout(CLOSE_SECS_MAX):
                if not self._lost.done() and self._client.is_connected:
                    # Brokers that read in one thread and work in another may leave what stands before a DISCONNECT.
                    self._ping(answered := asyncio.get_running_loop().create_future())
                    await asyncio.wait({answered, self._lost}, return_when=asyncio.FIRST_COMPLETED)
                await self._client.disconnect()
        except (OSError, TimeoutError, AttributeError):  # AttributeError: there never was a transport
            pass
        if not self._lost.done():
            self._lost.set_result(0)

    def send(self, packets: bytes) -> None:
        self._client._connection.send_package(packets)

    def ask(self) -> None:
        """Send a PINGREQ whose answer goes to ``on_answer``."""
        self._ping(None)

    def pause(self) -> None:
        """Read no further, but draw breath each half keepalive: a gmqtt that hears nothing closes the connection."""
        self._client._connection._transport.pause_reading()
        if self._breath is None:
            self._breath = asyncio.get_running_loop().call_later(self._settings.keepalive_secs / 2, self.resume)

    def resume(self) -> None:
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
            if not self._lost.done():
                self._client._connection._transport.resume_reading()

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
        client._package_handler._handle_publish_packet = self._on_publish_packet
        client._package_handler._handle_pingresp_packet = self._on_pingresp_packet
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

    def _on_connect(self, _client: Client, session_present: int, _code: int, _properties: dict[str, Any]) -> None:
        self._events.on_connect(session_present=bool(session_present))

    def _listen_for_goodbye(self, protocol: asyncio.Protocol) -> None:
        """Keep the last bytes received: a DISCONNECT that comes together with the end gmqtt does not read any more."""
        received = protocol.data_received

        def data_received(data: bytes) -> None:
            self._last_data = data
            received(data)

        protocol.data_received = data_received  # type: ignore[method-assign]

    def _on_disconnect(self, _client: Client, packet: bytes, _error: Exception | None = None) -> None:
        if not self._lost.done():
            self._lost.set_result(packet[0] if packet else read_goodbye(self._last_data) or 0)

    def _on_subscribe(self, _client: Client, _mid: int, granted: tuple[int, ...], _properties: dict[str, Any]) -> None:
        if not self._subscribed.done():
            self._subscribed.set_result(granted[0])

    def _on_publish_packet(self, flags: int, body: bytes) -> None:
        try:
            message = read_publish(flags, body)
        except Malformed as error:
            self._broken = OperatorError(f"MQTT broker at {self._address} breaks the protocol: {error}.")
            self._client._connection._transport.abort()
            return
        self._events.on_publish(message)

    def _on_pingresp_packet(self, _command: int, _body: bytes) -> None:
        asked_by = self._pings.popleft() if self._pings else KEEPALIVE
        if asked_by is None:
            self._events.on_answer()
        elif isinstance(asked_by, asyncio.Future) and not asked_by.done():
            asked_by.set_result(None)

    def _ping_keepalive(self) -> None:
        self._ping(KEEPALIVE)

    def _ping(self, asked_by: "Asker") -> None:
        self._pings.append(asked_by)
        MQTTConnection._send_ping_request(self._client._connection)


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
