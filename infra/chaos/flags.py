"""Flags, episodes, their records in Kafka and the alerts: those of the disturbed flow against an undisturbed one's.

Both read the same log. Records and alerts are written at least once, so it is their sets that are compared.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from connectors import mqtt_address
from connectors.mqtt_connection import Connection
from connectors.mqtt_packets import Publishes
from connectors.mqtt_publish import Publish
from connectors.mqtt_wire import TappedLoop
from infra.chaos import comparison
from schemas.anomaly_flag_pb2 import AnomalyFlag
from schemas.settings import Settings

ANSWER_SECS: Final = 10.0
MORE_SECS: Final = 0.5  # that a broker with a small window may take to refill it
_EPISODE: Final = (
    "topic, partition, episode_id, device_id, metric, detector, severity, opened_at, closed_at, cause, peak, "
    "params_version"
)
_LEDGER: Final = "partition, messages, ticks, refused, gaps"


def make_table(connection: psycopg.Connection[Any], settings: Settings) -> None:
    """The table that the settings name, as migrations make ``anomaly_flags``."""
    table = sql.Identifier(settings.flags.table)
    connection.execute(sql.SQL("create table {} (like anomaly_flags including all)").format(table))


def differences(disturbed: Settings, undisturbed: Settings, alerts: list[bytes]) -> Iterator[str]:
    """Everything that is not equal. ``alerts`` are the payloads of both."""
    both = (disturbed.flags, undisturbed.flags)
    with psycopg.connect(disturbed.database.conninfo) as connection:
        connection.execute("set timezone to 'UTC'")
        rows = (sql.SQL("select t::text from {} t").format(sql.Identifier(one.table)) for one in both)
        yield from comparison.between(connection, "flag", *rows)
        for table, columns in (("anomaly_episodes", _EPISODE), ("ledger", _LEDGER)):
            query = sql.SQL("select row({})::text from {} where flow = {}")
            named = (query.format(sql.SQL(columns), sql.Identifier(table), sql.Literal(one.name)) for one in both)
            yield from comparison.between(connection, f"{table} row", *named)
    yield from _sets("flag in the topic", *(_told(one) for one in (disturbed, undisturbed)))
    yield from _sets("alert", *(_alerts(alerts, one) for one in (disturbed, undisturbed)))


def _sets(what: str, ours: set[str], theirs: set[str]) -> Iterator[str]:
    yield from comparison.some(what, "only of the disturbed run", sorted(ours - theirs))
    yield from comparison.some(what, "only undisturbed", sorted(theirs - ours))


def _told(settings: Settings) -> set[str]:
    found = comparison.messages(settings, settings.flags.topic)
    return {f"partition {one.partition()}: {AnomalyFlag.FromString(one.value() or b'')}" for one in found}


def _alerts(payloads: list[bytes], settings: Settings) -> set[str]:
    level = f"{settings.flags.alert_topic.removesuffix('{device_id}')}".encode()
    return {msgspec.json.format(one.removeprefix(level)).decode() for one in payloads if one.startswith(level)}


class Listener:
    """A session at the broker that keeps every alert from ``subscribe`` on, until ``heard`` reads and ends it."""

    def __init__(self, settings: Settings, topic_filter: str) -> None:
        self._mqtt = settings.mqtt
        self._filter = topic_filter
        self._payloads: list[bytes] = []  # each with its topic before it, up to the device
        self._connection: Connection | None = None

    def subscribe(self) -> None:
        """Make the session. Raises ``Refused``."""
        self._run(self._subscribe)

    def heard(self) -> list[bytes]:
        """Every payload behind its topic's levels but the last; the session is ended."""
        self._run(self._hear)
        return self._payloads

    def _run(self, what: Any) -> None:
        with asyncio.Runner(loop_factory=TappedLoop) as runner:
            runner.run(self._connected(what))

    async def _connected(self, what: Any) -> None:
        address = mqtt_address.read_address(self._mqtt.url)
        self._connection = Connection(self._mqtt, f"{self._mqtt.client_id}-listener", address, self)
        try:
            await self._connection.open(mqtt_address.tls_context(self._mqtt, address))
            await what(self._connection)
        finally:
            await self._connection.close(end_session=what == self._hear)

    async def _subscribe(self, connection: Connection) -> None:
        await connection.subscribe(self._filter, backlog=False)

    async def _hear(self, connection: Connection) -> None:
        before = -1
        while before < len(self._payloads):
            before = len(self._payloads)
            await connection.answers(ANSWER_SECS)
            await asyncio.sleep(MORE_SECS)

    # What the connection says.

    def on_connect(self, *, session_present: bool) -> None: ...

    def on_answer(self) -> None: ...

    def on_publish(self, message: Publish) -> None:
        self._keep(message.topic, message.payload, message.packet_id)

    def on_publishes(self, messages: Publishes) -> None:
        for topic, payload, packet_id in zip(messages.topics, messages.payloads, messages.packet_ids, strict=True):
            self._keep(topic, payload, packet_id)

    def _keep(self, topic: str, payload: bytes, packet_id: int | None) -> None:
        self._payloads.append(topic[: topic.rindex("/") + 1].encode() + payload)
        if packet_id is not None and self._connection is not None:
            self._connection.acknowledge([packet_id])
