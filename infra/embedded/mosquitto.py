"""Mosquitto on loopback, where the machine has it (``apt install mosquitto``): for benches and tests, never shipped.

Guarantee: with ``persistence``, sessions and their queues survive ``stop``; a ``kill`` loses what was not saved yet.
"""

import getpass
import shutil
import socket
from pathlib import Path

from infra.embedded.child import Command
from infra.embedded.ports import LOOPBACK
from infra.embedded.server import Server

_CONFIGURATION = """\
listener {port} 127.0.0.1
allow_anonymous true
user {user}
persistence {persistence}
persistence_location {folder}/
# Its default of 1,000 drops silently what a client has not acknowledged.
max_queued_messages 0
max_inflight_messages {in_flight}
"""
# CONNECT, version 5, clean start, keepalive 10 s, no properties, a client id chosen by the broker
_CONNECT = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00"
_CONNACK = b"\x20"


def program() -> str | None:
    """Where Mosquitto is; None where it is not."""
    return shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/sbin")


class Mosquitto(Server):
    """One broker; ``in_flight_max`` messages a client at most, 0 for as many as the client's receive maximum."""

    title = "Mosquitto"
    version = "the installed one"

    def __init__(self, data: Path, *, in_flight_max: int = 0, persistence: bool = True) -> None:
        super().__init__(data)
        self._in_flight_max = in_flight_max
        self._persistence = persistence

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        return f"mqtt://{self.address}"

    def command(self) -> Command:
        found = program()
        assert found is not None, "ask program() first"
        configuration = self.data / "mosquitto.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                port=self.port,
                user=getpass.getuser(),
                folder=self.data,
                persistence=str(self._persistence).lower(),
                in_flight=self._in_flight_max,
            )
        )
        return Command("Mosquitto", [found, "-c", str(configuration)], self.data, self.log)

    def answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(_CONNECT)
                return connection.recv(1) == _CONNACK
        except OSError:
            return False
