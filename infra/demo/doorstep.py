"""Ingest's place at the MQTT broker, taken before ingest itself is there.

A broker keeps messages for a client only once the client has subscribed. So that devices may speak while the log still
starts, the session that ingest will resume is made here: the same client id and filter, and then gone again.
"""

import asyncio
from typing import Final

from connectors import mqtt_address
from connectors.mqtt_connection import Connection, Refused
from connectors.mqtt_packets import Publishes
from connectors.mqtt_publish import Publish
from dataflows.decoding.topics import compile_topic
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

SECS_MAX: Final = 10.0


class _Nobody:
    """Takes notice of nothing: what comes now is not acknowledged, so it comes again."""

    def on_connect(self, *, session_present: bool) -> None: ...
    def on_publish(self, message: Publish) -> None: ...
    def on_publishes(self, messages: Publishes) -> None: ...
    def on_answer(self) -> None: ...


def subscribe_ahead(mqtt: MqttSettings) -> None:
    """Make the sessions of all ingest workers. Raises ``OperatorError`` where the broker is away or refuses."""
    try:
        asyncio.run(asyncio.wait_for(_subscribe(mqtt), SECS_MAX))
    except Refused as refused:
        raise refused.error from None
    except TimeoutError:
        raise OperatorError(f"the MQTT broker at {mqtt.url} did not answer within {SECS_MAX:.0f} s") from None


async def _subscribe(mqtt: MqttSettings) -> None:
    topic_filter = compile_topic(mqtt.topic, mqtt.device_id_template).filter
    if mqtt.clients > 1:
        topic_filter = f"$share/{mqtt.share_name}/{topic_filter}"
    address = mqtt_address.read_address(mqtt.url)
    for worker in mqtt.workers:
        connection = Connection(mqtt, worker, address, _Nobody())
        try:
            await connection.open(mqtt_address.tls_context(mqtt, address))
            await connection.subscribe(topic_filter, backlog=False)
        finally:
            await connection.close()
