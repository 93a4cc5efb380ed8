"""The servers of a run: those of addresses that were given, embedded ones for the rest.

Guarantee: at the end nothing of a run is left at a given server, but sessions at its MQTT broker, which expire: topics
and the database are the run's own, and are removed.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from connectors import kafka_client, kafka_topics
from infra.chaos.kafka_addresses import Address
from infra.chaos.relay import Relay, Wire
from infra.embedded.stack import Stack
from schemas.errors import OperatorError
from schemas.settings import Settings

ADDRESSES: Final[Mapping[str, str]] = {
    "mqtt": "MQTT_URL",
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "database": "DATABASE_URL",
}
EMBEDDED: Final[Mapping[str, str]] = {"mqtt": "mqtt", "kafka": "kafka", "database": "postgres"}


@dataclass(frozen=True)
class Servers:
    """Where the servers are. ``restarts``: how to kill one and start it again, of those that are ours."""

    addresses: Mapping[str, str]
    restarts: Mapping[str, Callable[[], None]] = field(default_factory=dict)


@contextmanager
def servers(given: Mapping[str, str | None], say: Callable[[str], None] = lambda _: None) -> Iterator[Servers]:
    """Servers by name (mqtt, kafka, database), as ``given``, or embedded for as long as the block lasts."""
    addresses = {name: address for name, address in given.items() if address}
    ours = [EMBEDDED[name] for name in ADDRESSES if name not in addresses]
    with Stack(only=ours, say=say) as stack:
        for name, variable in ADDRESSES.items():
            addresses.setdefault(name, stack.environment.get(variable, ""))

        def restart(name: str) -> Callable[[], None]:
            def again() -> None:
                server = stack.servers[EMBEDDED[name]]
                server.kill()
                server.start()

            return again

        yield Servers(addresses, {name: restart(name) for name in ADDRESSES if EMBEDDED[name] in ours})


@contextmanager
def own_database(conninfo: str) -> Iterator[str]:
    """A new database at a server, dropped at the end."""
    name = f"chaos_{uuid.uuid4().hex[:12]}"
    try:
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(sql.SQL("create database {} template template0 encoding 'UTF8'").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise OperatorError(f"chaos makes a database of its own, and cannot: {error}") from None
    try:
        yield make_conninfo(conninfo, dbname=name)
    finally:
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def own_topics(*of: Settings) -> Iterator[None]:
    """The topics of some settings, made, and deleted at the end."""
    with ExitStack() as at_end:
        names = {finding.topic.name for settings in of for finding in kafka_topics.ensure(settings)}
        at_end.callback(_delete, of[0], sorted(names))
        yield


def _delete(settings: Settings, names: list[str]) -> None:
    admin = kafka_client.admin(settings.kafka)
    for answer in admin.delete_topics(names).values():
        answer.result(kafka_client.ANSWER_SECS)


def wires(relay: Relay, addresses: Mapping[str, str]) -> tuple[dict[str, Wire], dict[str, str]]:
    """A wire to each server, for one dataflow, and the addresses as seen through them."""
    mqtt = urlsplit(addresses["mqtt"])
    if mqtt.scheme not in ("mqtt", "tcp") or "," in addresses["kafka"]:
        raise OperatorError("chaos speaks through wires of its own: it takes plain mqtt://, and one Kafka address")
    kafka_host, _, kafka_port = addresses["kafka"].rpartition(":")
    database = conninfo_to_dict(addresses["database"])
    places: dict[str, Address] = {
        "mqtt": (mqtt.hostname or "", mqtt.port or 1883),
        "kafka": (kafka_host, int(kafka_port)),
        "database": (str(database["host"]), int(str(database.get("port") or 5432))),
    }
    made = {name: relay.wire(place, kafka=name == "kafka") for name, place in places.items()}
    credentials = mqtt.netloc.rpartition("@")[0]
    host, port = made["mqtt"].address
    seen = {
        "mqtt": f"mqtt://{credentials + '@' if credentials else ''}{host}:{port}",
        "kafka": "{}:{}".format(*made["kafka"].address),
        "database": make_conninfo(
            addresses["database"], host=made["database"].address[0], port=made["database"].address[1]
        ),
    }
    return made, seen
