"""The stack is all or none, and leaves nothing behind however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from infra.embedded.ports import is_free
from infra.embedded.stack import Stack, main
from infra.embedded.unprivileged import account_if_root, temporary_directory
from schemas.errors import OperatorError
from tests.infra.mqtt_wire import MqttWire
from tests.infra.test_embedded_child import eventually, is_alive

pytestmark = pytest.mark.embedded
ROOT = Path(__file__).parents[2]


def test_three_servers_start_answer_and_leave_nothing() -> None:
    """Each is asked in its own protocol; afterwards no process, no port, no data."""
    with Stack() as stack:
        places = stack.environment
        assert AdminClient({"bootstrap.servers": places["KAFKA_BOOTSTRAP_SERVERS"]}).list_topics(timeout=30).brokers
        with psycopg.connect(places["DATABASE_URL"]) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        with MqttWire(int(places["MQTT_URL"].rpartition(":")[2]), "a client"):
            pass
        stack.check()
        assert [title for title, _, _ in stack.banner] == ["PostgreSQL", "Apache Artemis", "Apache Kafka"]
        servers = list(stack.servers.values())
        ports, pids = [server.port for server in servers], [server.pid for server in servers]
    assert not any(is_alive(pid) for pid in pids)
    assert all(is_free(port) for port in ports)
    assert not any(server.data.exists() for server in servers)


def test_given_data_are_kept_and_are_one_stacks_alone(tmp_path: Path) -> None:
    """A second stack on them is refused while the first runs; the next one finds what was written."""
    data = tmp_path / "kept data"
    with Stack(data, only=["postgres"]) as stack:
        with psycopg.connect(stack.environment["DATABASE_URL"]) as connection:
            connection.execute("create table kept ()")
        with pytest.raises(OperatorError, match="Another stack runs on the data"), Stack(data, only=["postgres"]):
            pass
        stack.check()
    with Stack(data, only=["postgres"]) as stack, psycopg.connect(stack.environment["DATABASE_URL"]) as connection:
        assert connection.execute("select to_regclass('kept')::text").fetchone() == ("kept",)
    stack.servers["postgres"].erase()


def test_a_server_that_dies_is_noticed_and_the_others_still_stop() -> None:
    """`check` names it; leaving the context is no error."""
    with Stack(only=["postgres"]) as stack:
        server = stack.servers["postgres"]
        os.kill(server.pid, signal.SIGKILL)
        assert eventually(lambda: not server.running)
        with pytest.raises(OperatorError, match="PostgreSQL ended by itself"):
            stack.check()


def test_what_cannot_start_takes_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL was running when Kafka's jars turned out to be unreachable."""
    place = temporary_directory(account_if_root())
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(place))
    stack = Stack(only=["postgres", "kafka"])
    with pytest.raises(OperatorError, match="Apache Kafka could not be downloaded"), stack:
        pass
    assert not is_alive(stack.servers["postgres"].pid)
    assert is_free(stack.servers["postgres"].port)


def begin_command(*arguments: str) -> tuple["subprocess.Popen[bytes]", str, int]:
    """The command, what it printed when it was ready, and the port in that."""
    command = subprocess.Popen(
        [sys.executable, "-m", "infra.embedded.stack", "--only", "postgres", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert command.stdout is not None
    line = command.stdout.readline().decode()
    return command, line, int(line.rpartition(":")[2].partition("/")[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_the_command_leaves_nothing_whatever_ends_it(number: signal.Signals) -> None:
    """It exits with 0 when asked to stop; when killed, the keeper stops the server."""
    command, line, port = begin_command()
    assert line.startswith("DATABASE_URL=postgresql://ionwax:")
    with psycopg.connect(line.strip().partition("=")[2]) as connection:
        backend = connection.info.backend_pid
    assert not is_free(port)
    command.send_signal(number)
    assert command.wait(30) == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    assert eventually(lambda: is_free(port) and not is_alive(backend))


def test_the_command_stops_when_standard_input_ends() -> None:
    """Where the option asks for it."""
    command, _, port = begin_command("--until-stdin-closes")
    assert not is_free(port)
    assert command.stdin is not None
    command.stdin.close()
    assert command.wait(30) == 0
    assert is_free(port)


def test_an_unknown_server_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    with pytest.raises(SystemExit):
        main(["--only", "kafak"])
    assert "kafak is not of postgres, mqtt, kafka" in capsys.readouterr().err
