"""A child never outlives its parent, and ends by its process id."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.embedded.child import Child, Command
from infra.embedded.ports import LOOPBACK, free_port, is_free

ROOT = Path(__file__).parents[2]
SLEEP = ["/bin/sh", "-c", "echo $$; exec sleep 60"]
STUBBORN = ["/bin/sh", "-c", "trap '' TERM; echo $$; exec sleep 60"]


def eventually(holds: Callable[[], bool], secs: float = 45) -> bool:
    """Whether it holds before the deadline."""
    deadline = time.monotonic() + secs
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def said_pid(log: Path) -> int:
    """The process id that a server wrote as its first line."""
    assert eventually(lambda: log.exists() and b"\n" in log.read_bytes())
    return int(log.read_text().split()[0])


def command(tmp_path: Path, argv: list[str], **options: object) -> Command:
    return Command(title="A server", argv=argv, cwd=tmp_path, log=tmp_path / "log", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [Child.stop, Child.kill])
def test_when_stop_or_kill_returns_the_server_is_gone(tmp_path: Path, end: Callable[[Child], None]) -> None:
    """Neither the keeper nor the server is there any more, and a second call does nothing."""
    child = Child(command(tmp_path, SLEEP))
    server = said_pid(tmp_path / "log")
    assert is_alive(server)
    end(child)
    assert not is_alive(server)
    assert not is_alive(child.pid)
    end(child)


def test_a_server_that_will_not_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    """SIGTERM is ignored; the grace is half a second."""
    child = Child(command(tmp_path, STUBBORN, grace_secs=0.5))
    server = said_pid(tmp_path / "log")
    child.stop()
    assert not is_alive(server)


@pytest.mark.parametrize("argv", [SLEEP, STUBBORN], ids=["willing", "stubborn"])
def test_a_killed_parent_leaves_nothing_running(tmp_path: Path, argv: list[str]) -> None:
    """The parent gets SIGKILL, and so no chance to clean up."""
    script = (
        "import sys, time; from pathlib import Path; from infra.embedded.child import Child, Command\n"
        "here = Path(sys.argv[1])\n"
        "child = Child(Command(title='A server', argv=sys.argv[2:], cwd=here, log=here / 'log', grace_secs=0.5))\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), *argv], env=os.environ, cwd=ROOT)
    server = said_pid(tmp_path / "log")
    parent.kill()
    parent.wait()
    assert eventually(lambda: not is_alive(server))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_keeper_takes_its_server_along(tmp_path: Path) -> None:
    """The kernel does it; the parent sees an exit."""
    child = Child(command(tmp_path, SLEEP))
    server = said_pid(tmp_path / "log")
    os.kill(child.pid, signal.SIGKILL)
    assert eventually(lambda: not is_alive(server) and child.exit_code is not None)


def test_a_server_that_ends_by_itself_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    """The message has title, code and the last lines, and not the first ones of a long log."""
    script = "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i + 1)); done; exit 3"
    child = Child(command(tmp_path, ["/bin/sh", "-c", script]))
    assert eventually(lambda: child.exit_code is not None)
    message = str(child.failure())
    assert "A server ended by itself with code 3" in message
    assert "line 999" in message
    assert "line 9\n" not in message


def test_preparations_come_first_and_their_failure_is_the_failure(tmp_path: Path) -> None:
    """The server does not start where what prepares it fails."""
    child = Child(command(tmp_path, SLEEP, prepare=[["/bin/sh", "-c", "echo no room; exit 7"]]))
    assert eventually(lambda: child.exit_code == 7)
    assert (tmp_path / "log").read_text() == "no room\n"


def test_a_server_does_not_inherit_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PGPORT of the user's shell would bend PostgreSQL; libraries that Python needs are Python's alone."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", os.environ.get("LD_LIBRARY_PATH", str(tmp_path)))
    child = Child(command(tmp_path, ["/usr/bin/env"], env={"GIVEN": "1"}))
    assert eventually(lambda: child.exit_code == 0)
    names = {line.partition("=")[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert names == {"PATH", "LC_ALL", "TZ", "GIVEN"}


def test_a_free_port_is_below_those_of_outgoing_connections() -> None:
    """Else a client that keeps trying to reach a dead server may take the server's port."""
    import socket

    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(50):
        port = free_port()
        assert port < lowest
    with socket.create_server((LOOPBACK, port)):
        assert not is_free(port)
    assert is_free(port)
