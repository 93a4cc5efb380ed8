"""One connection of a publisher to an MQTT 5 broker: where it goes, how it stays alive, why it ended."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from infra.fleet import mqtt5
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

PORTS: Final = {"mqtt": 1883, "tcp": 1883, "mqtts": 8883, "ssl": 8883}


class Connection(asyncio.Protocol):
    """One TCP connection: hands over PUBACKs as they come, keeps itself alive, says why it ended."""

    def __init__(self, answered: Callable[[Sequence[mqtt5.Puback]], None]) -> None:
        self._answered = answered
        self._reader = mqtt5.Reader()
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[mqtt5.Connack] = asyncio.get_running_loop().create_future()
        self._lost = asyncio.Event()
        self._alive: asyncio.TimerHandle | None = None
        self._heard = True
        self.why = "closed by the broker"
        self.connack = mqtt5.Connack(False, 0)

    async def hello(self, mqtt: MqttSettings, client_id: str, clean: bool) -> None:
        self.write(
            mqtt5.connect(client_id, mqtt.keepalive_secs, mqtt.session_expiry_secs, clean, mqtt.username, mqtt.password)
        )
        self.connack = await self._ready
        self._stay_alive(self.connack.keepalive_secs or mqtt.keepalive_secs)

    def write(self, data: bytes) -> None:
        if self._transport and data:
            self._transport.write(data)

    def close(self) -> None:
        if self._alive:
            self._alive.cancel()
        if self._transport:
            self._transport.close()

    async def lost(self) -> None:
        await self._lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            packets = self._reader.feed(data)
        except mqtt5.Malformed as error:
            self.why = f"not MQTT 5: {error}"
            self.close()
            return
        pubacks = [packet for packet in packets if isinstance(packet, mqtt5.Puback)]
        for packet in packets:
            if isinstance(packet, mqtt5.Connack) and not self._ready.done():
                self._ready.set_result(packet)
            elif isinstance(packet, mqtt5.Other) and packet.kind == mqtt5.DISCONNECT:
                self.why = mqtt5.REASONS.get(packet.reason, f"reason {packet.reason:#04x}")
        if pubacks:
            self._answered(pubacks)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._alive:
            self._alive.cancel()
        if not self._ready.done():
            self._ready.set_exception(ConnectionError(str(exc or self.why)))
            self._ready.exception()  # seen, whether or not anyone waits
        self._lost.set()

    def _stay_alive(self, keepalive_secs: int) -> None:
        """Ask for a sign of life at each half of the keepalive; none since the last time, and it is dead."""
        if not self._heard:
            self.why = "no sign of life"
            if self._transport:
                self._transport.abort()
            return
        self._heard = False
        self.write(mqtt5.PINGREQ_PACKET)
        self._alive = asyncio.get_running_loop().call_later(
            max(1, keepalive_secs) / 2, self._stay_alive, keepalive_secs
        )


def address(mqtt: MqttSettings) -> tuple[str, int, ssl.SSLContext | None]:
    """Host, port and TLS of a broker's URL. Raises ``OperatorError`` where it is not one."""
    try:
        parts = urlsplit(mqtt.url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in PORTS or not host:
        raise OperatorError(
            f"not the URL of an MQTT broker: {mqtt.url.rpartition('@')[2]!r}; it looks like mqtt://host:1883 or mqtts://host"
        )
    if parts.username or parts.password:
        raise OperatorError(
            "the MQTT URL holds credentials; give MQTT_USERNAME and MQTT_PASSWORD in the environment instead"
        )
    secure = None
    if parts.scheme in ("mqtts", "ssl"):
        try:
            secure = ssl.create_default_context(cafile=mqtt.ca_file)
            if mqtt.cert_file:
                secure.load_cert_chain(mqtt.cert_file, mqtt.key_file)
        except OSError as error:
            raise OperatorError(f"cannot use the TLS files given for {mqtt.url}: {error}") from None
    return host, port or PORTS[parts.scheme], secure


def _safe(url: str) -> str:
    """A URL that may be shown: without what stands before an @."""
    return url.rpartition("@")[2]
