"""Alerts over MQTT: QoS 1, acknowledged by the broker before the caller goes on.

Rule: alerts are rare, so each ``send`` has a connection of its own, and nothing is kept alive between. What the broker
has not acknowledged is sent again: at least once, told apart by the idempotency key in the payload.

Guarantee: ``send`` returns when the broker has acknowledged all, or raises one ``OperatorError``: at once where waiting
would not help (credentials, access rules), after ``OUTAGE_SECS_MAX`` where the broker is away.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final

from gmqtt import Client, Message
from gmqtt.mqtt.handler import MQTTConnectError

from connectors import mqtt_address, stopping
from connectors.health import HEALTH
from connectors.metering import AlertMeter
from connectors.mqtt_connection import NEVER_RECONNECT, OPEN_SECS_MAX, Refused
from schemas.errors import OperatorError, ServerAway
from schemas.flag_records import Alert
from schemas.settings import MqttSettings

log = logging.getLogger("ionwax.alerts")

SERVER: Final = "the MQTT broker"
OUTAGE_SECS_MAX: Final = 45.0
"""Below the 60 s after which the database ends a transaction that idles: alerts go out within one."""

STOP_SECS: Final = 4.0  # how long a process that was asked to stop still tries
LOOK_SECS: Final = 0.1  # how soon a request to stop is noticed
WAIT_SECS_MIN: Final = 0.25
WAIT_SECS_MAX: Final = 5.0
ANSWER_SECS: Final = 10.0
IN_FLIGHT_MAX: Final = 10  # within any broker's receive maximum
REFUSED_FROM: Final = 0x80
_MESSAGE_REASONS: Final = {
    135: "not authorised to publish there: check the broker's access rules for flags.alert_topic",
    144: "it does not accept the topic: check flags.alert_topic",
    149: "the message is too large for it",
}


class AlertSender:
    """Sends alerts to one broker. Counts: ``sent``, what the broker has acknowledged."""

    def __init__(self, settings: MqttSettings, client_id: str) -> None:
        mqtt_address.check_credentials(settings)
        self._settings = settings
        self._client_id = client_id
        self._address = mqtt_address.read_address(settings.url)
        self._context = mqtt_address.tls_context(settings, self._address)
        self._stop_at: float | None = None
        self._meter = AlertMeter(client_id)
        self.sent = 0

    def send(self, alerts: Sequence[Alert]) -> None:
        """Return when the broker has acknowledged all of ``alerts``."""
        left = list(alerts)
        if not left:
            return
        self._meter.now(outstanding=len(left))
        began = time.monotonic()
        self._stop_at = None
        wait_secs = WAIT_SECS_MIN
        while True:
            try:
                asyncio.run(self._deliver(left))
            except Refused as refused:
                if not refused.transient:
                    raise refused.error from None
                HEALTH.away(SERVER, OUTAGE_SECS_MAX)
                log.warning("%s %d alerts wait.", refused.error, len(left))
                self._wait(wait_secs, began, refused, len(left))
                wait_secs = min(2 * wait_secs, WAIT_SECS_MAX)
            else:
                HEALTH.back(SERVER)
                return

    def _wait(self, secs: float, began: float, refused: Refused, left: int) -> None:
        """Wait before the next try. Raises where there is to be none."""
        until = time.monotonic() + secs
        while (now := time.monotonic()) < until:
            if stopping.requested():
                self._stop_at = self._stop_at or now + STOP_SECS
            asked = self._stop_at is not None and now >= self._stop_at
            if asked or now - began >= OUTAGE_SECS_MAX:
                raise ServerAway(
                    f"{refused.error} {left} alerts waited {now - began:.0f} s; nothing is half-written, and they are "
                    "sent at the next start. flags.alerts: false does without them."
                ) from None
            time.sleep(min(LOOK_SECS, until - now))

    async def _deliver(self, left: list[Alert]) -> None:
        """Send from the front of ``left``, and take off what is acknowledged. Raises ``Refused``."""
        delivery = _Delivery(self._settings, self._client_id, self._address)
        try:
            await delivery.open(self._context)
            while left:
                some = left[:IN_FLIGHT_MAX]
                await delivery.publish(some)
                del left[: len(some)]
                self.sent += len(some)
                self._meter.sent(len(some))
        finally:
            await delivery.close()


class _Delivery:
    """One connection that publishes."""

    def __init__(self, settings: MqttSettings, client_id: str, address: mqtt_address.Address) -> None:
        self._keepalive_secs = settings.keepalive_secs
        self._address = address
        self._lost = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._client = Client(client_id, clean_session=True)
        self._client.set_config(NEVER_RECONNECT)
        if settings.username is not None:
            self._client.set_auth_credentials(settings.username, settings.password)
        self._client.on_disconnect = self._on_disconnect
        self._client._package_handler._handle_puback_packet = self._on_puback  # gmqtt's own passes over the reason

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Connect and be accepted. Raises ``Refused``."""
        connecting = asyncio.ensure_future(
            self._client.connect(
                self._address.host, self._address.port, ssl=context or False, keepalive=self._keepalive_secs
            )
        )
        await self._first(connecting, OPEN_SECS_MAX)
        try:
            connecting.result()
        except MQTTConnectError as error:
            code = error._code
            raise Refused(mqtt_address.refused(self._address, code), transient=code in mqtt_address.TRANSIENT) from None
        except OSError as error:
            raise Refused(mqtt_address.unreachable(self._address, error), transient=True) from None

    async def publish(self, alerts: Sequence[Alert]) -> None:
        """Publish and wait for the acknowledgement of each."""
        answers: list[asyncio.Future[int]] = []
        for alert in alerts:
            message = Message(alert.topic, alert.payload, qos=1, content_type="application/json")
            packet_id, _ = self._client._connection.publish(message)
            answers.append(asyncio.get_running_loop().create_future())
            self._answers[packet_id] = answers[-1]
        every = asyncio.gather(*answers)
        await self._first(every, ANSWER_SECS)
        for alert, reason in zip(alerts, every.result(), strict=True):
            if reason >= REFUSED_FROM:
                raise Refused(self._not_taken(alert, reason), transient=reason in mqtt_address.TRANSIENT)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._client.disconnect()
        except (OSError, TimeoutError, AttributeError):  # AttributeError: there never was a transport
            pass

    async def _first(self, wanted: "asyncio.Future[Any]", secs_max: float) -> None:
        """Wait for ``wanted``; the end of the connection, or of patience, is ``Refused``."""
        await asyncio.wait({wanted, self._lost}, timeout=secs_max, return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            wanted.cancel()
            away = mqtt_address.hung_up(self._address) if self._lost.done() else None
            raise Refused(away or mqtt_address.unreachable(self._address, TimeoutError()), transient=True)

    def _not_taken(self, alert: Alert, reason: int) -> OperatorError:
        words = _MESSAGE_REASONS.get(reason, f"reason code {reason}")
        return OperatorError(f"MQTT broker at {self._address} refused the alert to {alert.topic!r}: {words}.")

    def _on_puback(self, _command: int, packet: bytes) -> None:
        packet_id = packet[0] << 8 | packet[1]
        self._client._package_handler.id_generator.free_id(packet_id)
        answer = self._answers.pop(packet_id, None)
        if answer is not None and not answer.done():
            answer.set_result(packet[2] if len(packet) > 2 else 0)

    def _on_disconnect(self, _client: Client, _packet: bytes, _error: Exception | None = None) -> None:
        if not self._lost.done():
            self._lost.set_result(None)
