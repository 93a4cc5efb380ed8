"""What one MQTT client shows of itself: counts of its inbox, and whether it has its connection."""

import math

from connectors import metering
from connectors.health import HEALTH
from connectors.mqtt_inbox import Inbox


class MqttMeter:
    """Read when Prometheus asks; told by the client's thread when the connection comes and goes."""

    def __init__(self, inbox: Inbox) -> None:
        self.worker = inbox.worker
        self.connected = False
        self._connects = 0
        self._inbox = inbox
        metering.mqtt_client(self)

    @property
    def received(self) -> int:
        return self._inbox.received

    @property
    def acknowledged(self) -> int:
        return self._inbox.acknowledged

    @property
    def dropped(self) -> int:
        return self._inbox.dropped

    @property
    def outstanding(self) -> int:
        return self._inbox.gauge.in_flight

    @property
    def reconnects(self) -> int:
        return max(0, self._connects - 1)

    def up(self) -> None:
        """Connected and subscribed."""
        self.connected = True
        self._connects += 1
        HEALTH.back(self._server)

    def down(self) -> None:
        """The connection is lost, or could not be had; it is tried for as long as it takes."""
        self.connected = False
        HEALTH.away(self._server, math.inf)

    def ended(self) -> None:
        """The client has ended, and waits for nothing."""
        self.connected = False
        HEALTH.back(self._server)

    @property
    def _server(self) -> str:
        return f"the MQTT broker ({self.worker})"
