"""PostgreSQL really starts, as root too, keeps what was committed, and lets only its password in."""

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra.embedded.ports import LOOPBACK, is_free
from infra.embedded.postgres import PostgresServer
from infra.embedded.unprivileged import account_if_root, can_reach, data_place, temporary_directory
from tests.infra.test_embedded_child import eventually, is_alive

pytestmark = pytest.mark.embedded
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server whose path has a space."""
    place = temporary_directory(account_if_root())
    server = PostgresServer(place / "some data")
    (place / "some data").mkdir(mode=0o755)
    server.start()
    yield server
    server.stop()
    server.erase()
    place.rmdir()


def test_commits_survive_a_kill_and_the_conninfo_stays(server: PostgresServer) -> None:
    """What was committed is there after kill -9 and a start on the same data; what was not is not."""
    conninfo = server.conninfo
    with psycopg.connect(conninfo) as connection:
        connection.execute("create table kept as select generate_series(1, 1000) as n")
    open_transaction = psycopg.connect(conninfo)
    open_transaction.execute("insert into kept values (0)")
    server.kill()
    open_transaction.close()
    server.start()
    assert server.conninfo == conninfo
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("select count(*), min(n) from kept").fetchone() == (1000, 1)


def test_another_object_continues_on_the_same_data(server: PostgresServer) -> None:
    """Password and port are read from the directory."""
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("create table there ()")
    server.stop()
    again = PostgresServer(server.data)
    again.start()
    try:
        with psycopg.connect(again.conninfo) as connection:
            assert connection.execute("select to_regclass('there')::text").fetchone() == ("there",)
    finally:
        again.stop()
        server.start()


def test_only_the_password_opens_it(server: PostgresServer) -> None:
    """Neither none nor a wrong one does, and there is no Unix socket to go round by."""
    address = f"host={LOOPBACK} port={server.port} user=ionwax dbname=ionwax"
    for password in ("", "password=wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"{address} {password}")
    with psycopg.connect(server.conninfo) as connection:
        assert connection.execute("show unix_socket_directories").fetchone() == ("",)
        assert connection.execute("show listen_addresses").fetchone() == (LOOPBACK,)


def test_it_sorts_as_bytes_and_speaks_utf8(server: PostgresServer) -> None:
    """The same order on every machine, whatever its locale."""
    with psycopg.connect(server.conninfo) as connection:
        rows = connection.execute("select v from (values ('é'), ('a'), ('B'), ('🔥')) t(v) order by v").fetchall()
    assert [value for (value,) in rows] == ["B", "a", "é", "🔥"]


def test_stop_ends_clients_and_leaves_no_process_and_no_port(server: PostgresServer) -> None:
    """Also with a client connected and a query running."""
    busy = psycopg.connect(server.conninfo)
    backend = busy.info.backend_pid
    with socket.create_connection((LOOPBACK, server.port)):
        server.stop()
    assert not is_alive(server.pid)
    assert eventually(lambda: not is_alive(backend))
    assert is_free(server.port)
    busy.close()
    server.start()


def test_a_killed_initdb_is_begun_again() -> None:
    """Its half of a cluster is not taken for a whole one."""
    place = temporary_directory(account_if_root())
    server = PostgresServer(place)
    server.begin()
    assert eventually((place / "owned" / "fresh").exists)
    server.kill()
    server.start()
    server.stop()
    server.erase()


@as_root
def test_root_runs_it_as_nobody(server: PostgresServer) -> None:
    """The server's own process, found through the directory it works in."""
    nobody = pwd.getpwnam("nobody").pw_uid
    with psycopg.connect(server.conninfo) as connection:
        backend = Path(f"/proc/{connection.info.backend_pid}")
        assert backend.stat().st_uid == nobody


@as_root
def test_data_that_nobody_could_not_reach_get_a_place_of_their_own(tmp_path: Path) -> None:
    """Pytest's directories are closed to others: the modes stay, the data lie elsewhere and go with `erase`."""
    account = account_if_root()
    assert account is not None
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert not can_reach(account, closed)
    server = PostgresServer(closed / "data")
    server.start()
    try:
        with psycopg.connect(server.conninfo) as connection:
            connection.execute("create table anywhere ()")
        server.restart()
        with psycopg.connect(server.conninfo) as connection:
            assert connection.execute("select to_regclass('anywhere')::text").fetchone() == ("anywhere",)
    finally:
        server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700
    elsewhere = data_place(account, closed / "data")
    assert elsewhere != closed / "data"
    server.erase()
    assert not elsewhere.exists()
    assert not (closed / "data").exists()
