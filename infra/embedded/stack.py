"""Kafka, PostgreSQL and the MQTT broker together, started side by side and stopped as one.

    python -m infra.embedded.stack [--only kafka,postgres,mqtt] [--data DIR] [--until-stdin-closes]

prints `NAME=value` for each server when all of them answer, and runs until it is told to stop.

Rule: all or none. What cannot start takes the others down with it, and so does one that dies later: whoever
holds the stack calls `check` and gets the reason.

Guarantee: when the context ends, by whatever exception, no process and no listening port is left, and no data
unless a directory was given; a kill of this process leaves nothing running either (see `keeper`).
"""

import argparse
import fcntl
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.embedded.kafka import KafkaBroker
from infra.embedded.mqtt import MqttBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.server import Server
from infra.embedded.unprivileged import account_if_root, temporary_directory
from schemas.errors import OperatorError

SERVERS = ("postgres", "mqtt", "kafka")  # the quickest to begin first: it starts while the next is prepared
_CHECK_SECS = 1.0


class Stack:
    """Use as a context; `data` is kept when it is given, else a temporary directory that goes with the stack."""

    def __init__(
        self,
        data: Path | None = None,
        *,
        only: Collection[str] = SERVERS,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        assert set(only) <= set(SERVERS), only
        self._given = data
        self._only = only
        self._say = say
        self._closing = ExitStack()
        self.servers: dict[str, Server] = {}

    def __enter__(self) -> Self:
        try:
            data = self._claim()
            make = {"kafka": KafkaBroker, "postgres": PostgresServer, "mqtt": MqttBroker}
            for name in SERVERS:
                if name in self._only:
                    self.servers[name] = make[name](data / name, say=self._say)
                    self.servers[name].begin()
            for server in self.servers.values():
                server.await_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Raise an `OperatorError` with the end of its log if a server died by itself."""
        for server in self.servers.values():
            server.check()

    @property
    def environment(self) -> dict[str, str]:
        """Name → value of what clients need; one of them holds a password."""
        found = {}
        for server in self.servers.values():
            if isinstance(server, KafkaBroker):
                found["KAFKA_BOOTSTRAP_SERVERS"] = server.bootstrap_servers
            elif isinstance(server, PostgresServer):
                found["DATABASE_URL"] = server.conninfo
            elif isinstance(server, MqttBroker):
                found["MQTT_URL"] = server.url
        return found

    @property
    def banner(self) -> list[tuple[str, str, str]]:
        """Title, version and address of each server, for people."""
        return [(server.title, server.version, server.address) for server in self.servers.values()]

    def _claim(self) -> Path:
        """The data directory, ours alone while the stack lives."""
        if self._given is None:
            data = temporary_directory(account_if_root())
            self._closing.callback(shutil.rmtree, data, ignore_errors=True)
            return data
        self._given.mkdir(parents=True, exist_ok=True)
        lock = self._closing.enter_context((self._given / "stack.lock").open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(
                f"Another stack runs on the data in {self._given}; stop it, or name another directory."
            ) from None
        return self._given

    def _stop(self) -> None:
        """Ask all, producers of work before its keepers, then wait for each: the times do not add up."""
        for name in reversed(SERVERS):
            if name in self.servers:
                self.servers[name].ask_to_stop()
        for server in self.servers.values():
            server.stop()
            if self._given is None:
                server.erase()
        self._closing.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stack until SIGTERM, SIGINT, SIGHUP or the end of standard input; the exit code."""
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with Stack(options.data, only=options.only, say=_say) as stack:
            try:
                _run(stack, options.until_stdin_closes)
            finally:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)  # stopping takes moments, and is not to be cut short
    except KeyboardInterrupt:
        return 0
    except OperatorError as error:
        _say(str(error))
        return 1
    return 0


def _run(stack: Stack, until_stdin_closes: bool) -> None:
    for title, version, address in stack.banner:
        _say(f"{title} {version} on {address}")
    for name, value in stack.environment.items():
        print(f"{name}={value}", flush=True)
    closed = threading.Event()
    if until_stdin_closes:
        threading.Thread(target=_set_at_end_of_stdin, args=[closed], daemon=True).start()
    while not closed.wait(_CHECK_SECS):
        stack.check()


def _set_at_end_of_stdin(closed: threading.Event) -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    closed.set()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.embedded.stack", description="Embedded servers, on loopback, until told to stop."
    )
    parser.add_argument("--only", type=_names, default=SERVERS, help=f"of {','.join(SERVERS)}; all by default")
    parser.add_argument("--data", type=Path, help="keep the data here; a temporary directory by default")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when standard input ends")
    return parser.parse_args(arguments)


def _names(value: str) -> list[str]:
    names = value.split(",")
    if unknown := set(names) - set(SERVERS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is not of {', '.join(SERVERS)}")
    return names


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
