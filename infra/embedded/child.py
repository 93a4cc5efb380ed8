"""One supervised child process: a keeper and the server it keeps, in a session of their own.

Rule: a child is stopped by its process id and nothing else, and a child that ends by itself is an
`OperatorError` with the last lines of its log. Its environment is given, never inherited, so that a
`PGPORT` or `JAVA_TOOL_OPTIONS` of the user's shell cannot bend it.

Guarantee: when `stop` or `kill` returns, keeper and server are gone; when this process dies by any means,
they are gone within seconds (see `keeper`).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import OperatorError

_KEEPER = Path(__file__).with_name("keeper.py")
# What some Pythons need to start at all; the keeper is one, and hides it from the server.
_FOR_PYTHON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_LOG_TAIL_LINES = 15
_KILL_SECS_MAX = 5.0
_LOG_TAIL_BYTES = 8_192


@dataclass(frozen=True)
class Account:
    """A user that a child runs as instead of root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """What to run: `prepare` commands one after the other, then the server `argv`, all in `cwd`."""

    title: str
    argv: Sequence[str]
    cwd: Path
    log: Path
    prepare: Sequence[Sequence[str]] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_secs: float = 5.0


class Child:
    """A running command. Starting does not wait for anything; ask the server itself whether it is ready."""

    def __init__(self, command: Command) -> None:
        self.command = command
        spec = {
            "parent": os.getpid(),
            "argv": list(command.argv),
            "prepare": [list(argv) for argv in command.prepare],
            "uid": command.account.uid if command.account else None,
            "gid": command.account.gid if command.account else None,
            "stop_signal": int(command.stop_signal),
            "grace_secs": command.grace_secs,
            "without": [name for name in _FOR_PYTHON if name not in command.env],
        }
        for_keeper = {name: os.environ[name] for name in _FOR_PYTHON if name in os.environ}
        with command.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), json.dumps(spec)],
                cwd=command.cwd,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC", **for_keeper, **command.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the keeper, which leads the session and process group of the server."""
        return self._keeper.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._keeper.poll()

    def ask_to_stop(self) -> None:
        """Begin to stop, without waiting; `stop` must follow. Safe to call on what has ended."""
        if self._keeper.poll() is None:
            self._keeper.terminate()

    def stop(self) -> None:
        """Ask the server to stop in order; kill it when it has not within its grace. Safe to call twice."""
        if self._keeper.poll() is not None:
            return
        self.ask_to_stop()
        try:
            self._keeper.wait(self.command.grace_secs + 1)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """As `kill -9` would: the server gets no chance to write anything."""
        if self._keeper.poll() is not None:
            return
        self._keeper.send_signal(signal.SIGUSR1)
        try:
            self._keeper.wait(_KILL_SECS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(self._keeper.pid, signal.SIGKILL)
            self._keeper.wait()

    def failure(self) -> OperatorError:
        """What to tell the operator about a child that ended by itself."""
        tail = log_tail(self.command.log)
        said = f"its log ends:\n{tail}" if tail else "its log is empty."
        return OperatorError(
            f"{self.command.title} ended by itself with code {self._keeper.poll()} (see {self.command.log}); {said}"
        )


def log_tail(log: Path) -> str:
    """The last lines of a log, indented, empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join("    " + line for line in lines[-_LOG_TAIL_LINES:])
