"""What the embedded servers have in common: begin, wait until it answers, stop, kill, start again.

Rule: `begin` only spawns; `answers` asks the server in its own protocol. So several servers start side by
side without threads, and ready means that a client would succeed.

Guarantee: data, password and port outlive `stop` and `kill`; `start` after either continues on them.
"""

import shutil
import time
from abc import ABC, abstractmethod
from pathlib import Path

from infra.embedded.child import Child, Command, log_tail
from infra.embedded.ports import free_port, is_free
from schemas.errors import OperatorError

START_SECS_MAX = 120.0  # seconds on an idle machine; minutes where eight others run tests
_ASK_AGAIN_SECS = 0.03
_STARTS_MAX = 3  # a port that was free a moment ago can be taken: then choose another and start again


class Server(ABC):
    """One server with its data in `data`; subclasses say how to run it and how to ask it."""

    title: str
    version: str

    def __init__(self, data: Path) -> None:
        self.data = data.absolute()
        self.log = self.data / "server.log"
        self._child: Child | None = None
        self._port = 0

    @abstractmethod
    def command(self) -> Command:
        """Write what the server needs into `data` and say how to run it."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client gets an answer now; returns within about a second."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients connect, without a secret."""

    @property
    def port(self) -> int:
        """The loopback port: chosen at the first start, kept from then on, also across processes."""
        if not self._port:
            kept = self.data / "port"
            self._port = int(kept.read_text()) if kept.exists() else 0
            if not self._port or not is_free(self._port):
                self._choose_port()
        return self._port

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    @property
    def pid(self) -> int:
        """The process group of the running server."""
        assert self._child is not None, "not started"
        return self._child.pid

    def begin(self) -> None:
        """Spawn the server and return at once; `await_ready` must follow."""
        assert not self.running, "already running"
        self.data.mkdir(parents=True, exist_ok=True)
        self._child = Child(self.command())

    def await_ready(self, secs_max: float = START_SECS_MAX) -> None:
        """Return when the server answers; stop it and raise an `OperatorError` when it does not."""
        deadline = time.monotonic() + secs_max
        starts = 1
        while not self.answers():
            assert self._child is not None, "not started"
            if self._child.exit_code is not None:
                if starts == _STARTS_MAX or not self._a_port_was_taken():
                    raise self._child.failure()
                starts += 1
                if not is_free(self.port):
                    self._choose_port()
                self.begin()
            if time.monotonic() > deadline:
                self.kill()
                raise OperatorError(
                    f"{self.title} did not answer on {self.address} within {secs_max:.0f} s "
                    f"(see {self.log}); its log ends:\n{log_tail(self.log)}"
                )
            time.sleep(_ASK_AGAIN_SECS)

    def start(self) -> None:
        """Start on the data that is there, or on none, and return when it answers."""
        self.begin()
        self.await_ready()

    def ask_to_stop(self) -> None:
        """Begin to stop, without waiting, so that several stop at once; `stop` must follow."""
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> None:
        """Stop in order; the data stay. Safe to call twice."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """As `kill -9`; the data stay as the server left them."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Stop in order and start again on the same port and data."""
        self.stop()
        self.start()

    def erase(self) -> None:
        """Remove the data of a stopped server."""
        shutil.rmtree(self.data, ignore_errors=True)

    def check(self) -> None:
        """Raise an `OperatorError` with the end of its log if the server died by itself."""
        if self._child is not None and self._child.exit_code is not None:
            raise self._child.failure()

    def _a_port_was_taken(self) -> bool:
        """Of it or of its parts; its own words say so also where whoever took it has gone again."""
        return not is_free(self.port) or "already in use" in log_tail(self.log).lower()

    def _choose_port(self) -> None:
        self._port = free_port()
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "port").write_text(f"{self._port}\n")
