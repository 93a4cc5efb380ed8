"""Both dataflows on one log, logged in as writer: every reading in the archive, no late copy counted again.

Readings come straight from a producer, so that a copy is late for certain: its minute is closed by a tick before it.
"""

import io
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import psycopg
import pytest
import yaml
from psycopg import sql

from infra.migrations import migrate
from infra.sql import ask
from infra.verify.__main__ import check
from schemas.errors import OperatorError
from tests.logins import Logins, fresh_logins
from tests.pgbouncer import POOL_SIZE, PgBouncer, program
from tests.telemetry_log import MINUTE_MS, Log
from tests.topology import Topology, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract, pytest.mark.long]


@pytest.fixture(scope="module")
def logins(admin_url: str) -> Iterator[Logins]:
    with fresh_logins(admin_url) as made:
        yield made


@pytest.fixture(scope="module")
def bouncer(logins: Logins, server_data: Path) -> Iterator[PgBouncer | None]:
    """Before the database, as owner and as writer; None where there is no PgBouncer."""
    if program() is None:
        yield None
        return
    server = PgBouncer(server_data / "pgbouncer", {"owner": logins.owner, "writer": logins.writer})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, logins: Logins, bouncer: PgBouncer | None
) -> Iterator[Topology]:
    """Ten minutes, through PgBouncer where there is one. Half way the archive is killed, and PgBouncer too."""
    folder: Path = tmp_path_factory.mktemp("archive")
    with topology(folder, kafka_bootstrap, logins.owner, "mqtt://127.0.0.1:1") as flows:
        as_writer(flows, logins.writer if bouncer is None else bouncer.conninfo("writer"))
        log = Log(flows)
        for _ in range(4):
            log.minute(copies=20, new_late=4)
        log.flush()
        flows.start("raw_archive")
        wait_for(lambda: archived(flows) >= 1, "the archive begins", lambda: words(flows))
        flows.start("minute_rollups")
        for n in range(6):
            if n == 3:
                assert flows.stop("raw_archive", signal.SIGKILL) == -signal.SIGKILL
                if bouncer is not None:
                    bouncer.kill()
            if n == 4 and bouncer is not None:
                bouncer.start()
            log.minute(copies=20, new_late=4)
            log.flush()
        flows.start("raw_archive", name="raw_archive again")
        log.now_ms += MINUTE_MS
        log.tick()
        log.flush()
        wait_for(lambda: settle(flows, log), "all is archived, closed and settled", lambda: words(flows))
        assert {flows.stop(name) for name in list(flows.running)} == {0}
        yield flows


def as_writer(flows: Topology, conninfo: str) -> None:
    """Let the dataflows log in as writer; the test itself asks as owner."""
    settings = yaml.safe_load(flows.settings_path.read_text())
    settings["database"]["conninfo"] = conninfo
    flows.settings_path.write_text(yaml.safe_dump(settings))


def archived(flows: Topology) -> int:
    return int(flows.ask("select count(*) from raw_telemetry")[0][0])


def settle(flows: Topology, log: Log) -> bool:
    """A tick more, as live ingest has them, and whether nothing is open and nothing waits."""
    log.now_ms += 1000
    log.tick()
    log.flush()
    expected = 10 * (13 * 3 * 3 + 20 * 3 + 8 * 3)
    found = flows.ask("select flow, sum(readings)::int, sum(open)::int from ledger group by 1 order by 1")
    return found == [("minute_rollups", expected, 0), ("raw_archive", expected, 0)] and archived(flows) == expected


def words(flows: Topology) -> str:
    """What the processes said, and what is in the database, for a failure's message."""
    said = [f"{path.name}: {path.read_text()[-3_000:]}" for path in flows.folder.glob("*.log")]
    asked = (
        "select flow, topic, partition, position from progress",
        "select * from ledger",
        "select * from late_waiting",
    )
    return "\n".join([*said, *(str(flows.ask(one)) for one in asked)])


def test_late_copies_count_once(told: Topology) -> None:
    """Of each reading one is in its row: copies on time, late, and of late ones are told apart."""
    ((rows, late, late_duplicates, duplicates),) = told.ask(
        "select (select sum(count)::int from rollups_1m), sum(late)::int, sum(late_duplicates)::int, "
        "sum(duplicates)::int from ledger where flow = 'minute_rollups'"
    )
    assert (late, late_duplicates, duplicates) == (10 * 4 * 3, 10 * (20 + 4) * 3, 10 * 3 * 3)
    assert rows == 10 * (12 * 3 + 4) * 3
    assert told.ask("select count(*) from late_readings where archived_until is null") == [(0,)]


def test_verify_finds_nothing_wrong_with_two_flows(told: Topology) -> None:
    """Not even with the log read again."""
    assert [] == list(check(told.settings, deep=True))


TAMPERING = {
    "an archived reading deleted": (
        'delete from raw_telemetry where (partition, "offset", metric) = '
        '(select partition, "offset", metric from raw_telemetry order by 1, 2, 3 limit 1)',
        "the archive holds",
    ),
    "a late copy counted": (
        "insert into late_readings select device_id, metric, event_time, value, 'minute_rollups', partition, "
        "1000000, now(), 2000000 from raw_telemetry limit 1",
        "repeats offset",
    ),
}


@pytest.mark.parametrize("tampering", TAMPERING)
def test_verify_finds_what_was_changed(told: Topology, logins: Logins, tampering: str) -> None:
    """In the archive, and in what was made of it."""
    statement, expected = TAMPERING[tampering]
    tables = ("raw_telemetry", "late_readings")
    with psycopg.connect(logins.owner) as connection:
        for table in tables:
            connection.execute(f"create temporary table kept_{table} as table {table}".encode())
        try:
            connection.execute(statement.encode())
            connection.commit()
            found = "\n".join(map(str, check(told.settings)))
        finally:
            for table in tables:
                connection.execute(f"delete from {table}".encode())
                connection.execute(f"insert into {table} select * from kept_{table}".encode())
    assert re.search(expected, found), found


def test_nothing_of_a_session_is_left_behind_pgbouncer(told: Topology, bouncer: PgBouncer | None) -> None:
    """Flows, migrate, sql and verify share two connections with others: no setting, lock, statement or cursor stays."""
    if bouncer is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    through = bouncer.conninfo("owner")
    assert migrate(through) == []
    ask(through, "select count(*) from raw_telemetry", io.StringIO())
    with pytest.raises(OperatorError, match="add --write"):
        ask(through, "delete from raw_telemetry", io.StringIO())
    database = msgspec.structs.replace(told.settings.database, conninfo=through)
    assert [] == list(check(msgspec.structs.replace(told.settings, database=database), deep=True))
    for name in ("owner", "writer"):
        with ExitStack() as held:  # one transaction a connection of the pool: all of them are seen
            for _ in range(POOL_SIZE):
                connection = held.enter_context(psycopg.connect(bouncer.conninfo(name), prepare_threshold=None))
                settings = "select name from pg_settings where source = 'session' and name <> all(%s)"
                assert connection.execute(settings, [["client_encoding", "application_name"]]).fetchall() == []
                assert connection.execute("select name from pg_prepared_statements").fetchall() == []
                assert connection.execute("select name from pg_cursors where is_holdable").fetchall() == []
                locks = "select 1 from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
                assert connection.execute(locks).fetchall() == []


def test_a_reader_reads_what_was_made_after_the_roles(told: Topology, logins: Logins) -> None:
    """All tables, partitions that the dataflows made, those of migrations to come; and verify runs as reader."""
    with psycopg.connect(logins.owner, autocommit=True) as owner, psycopg.connect(logins.reader) as reader:
        owner.execute("create table later (a int)")
        try:
            ours = "relkind in ('r', 'p', 'v') and relnamespace = 'public'::regnamespace"
            tables = {name for (name,) in owner.execute(f"select relname from pg_class where {ours}".encode())}
            assert {"later", "rollups_1m", "raw_telemetry"} < tables
            for name in tables:
                reader.execute(sql.SQL("select 1 from {} limit 1").format(sql.Identifier(name)))
            reader.rollback()
        finally:
            owner.execute("drop table later")
    database = msgspec.structs.replace(told.settings.database, conninfo=logins.reader)
    assert [] == list(check(msgspec.structs.replace(told.settings, database=database), deep=True))
