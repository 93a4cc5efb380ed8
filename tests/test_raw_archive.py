"""Both dataflows on one log, logged in as writer: every reading in the archive, no late copy counted again.

Readings come straight from a producer, so that a copy is late for certain: its minute is closed by a tick before it.
"""

import contextlib
import re
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psycopg
import pytest
import yaml
from confluent_kafka import Producer
from psycopg import sql
from psycopg.conninfo import make_conninfo

from infra.migrations import migrate
from infra.verify.__main__ import check
from schemas.telemetry_pb2 import Telemetry
from tests.databases import fresh_database
from tests.topology import Topology, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

MINUTE_MS = 60_000
START_MS = 1_763_700_000_000 // MINUTE_MS * MINUTE_MS
DEVICES = ("boiler-7", "kettle", "🌡")
METRICS = {"temperature": 21.5, "running": 1.0, "level": -0.0}


@dataclass
class Logins:
    """Users of a writer's and a reader's rights, and of none but to make databases."""

    owner: str
    writer: str
    reader: str


@pytest.fixture(scope="module")
def logins(admin_url: str) -> Iterator[Logins]:
    """A fresh database, migrated by its owner, and a login of each role."""
    name = f"u{uuid.uuid4().hex[:10]}"
    with fresh_database(admin_url) as owner, psycopg.connect(admin_url, autocommit=True) as admin:
        migrate(owner)
        urls = {}
        for role in ("writer", "reader"):
            user = sql.Identifier(f"{name}_{role}")
            of = sql.Identifier(f"ionwax_{role}")
            admin.execute(sql.SQL("create role {} login password 'of-a-test' in role {}").format(user, of))
            urls[role] = make_conninfo(owner, user=f"{name}_{role}", password="of-a-test")
        try:
            yield Logins(owner, urls["writer"], urls["reader"])
        finally:
            for role in urls:
                admin.execute(sql.SQL("drop role {}").format(sql.Identifier(f"{name}_{role}")))


@dataclass
class Log:
    """Appends to raw.events, with append times of its own."""

    flows: Topology
    now_ms: int = START_MS

    def __post_init__(self) -> None:
        self.producer = Producer(
            {"bootstrap.servers": self.flows.settings.kafka.bootstrap_servers, "partitioner": "murmur2_random"}
        )

    def say(self, device: str, event_ms: int, metrics: dict[str, float], times: int = 1) -> None:
        value = Telemetry(device_id=device, ts=event_ms, metrics=metrics).SerializeToString()
        for _ in range(times):
            self.producer.produce(self.flows.settings.kafka.events_topic, value, device.encode(), timestamp=self.now_ms)

    def refuse(self, device: str) -> None:
        """A record that nobody can read."""
        self.producer.produce(
            self.flows.settings.kafka.events_topic, b"\xff\xff\xff", device.encode(), timestamp=self.now_ms
        )

    def tick(self) -> None:
        """Of the only ingest worker, to every partition."""
        value = Telemetry(ts=self.now_ms).SerializeToString()
        worker = self.flows.settings.mqtt.workers[0].encode()
        for partition in range(self.flows.settings.kafka.partitions):
            self.producer.produce(
                self.flows.settings.kafka.events_topic,
                value,
                None,
                partition,
                timestamp=self.now_ms,
                headers=[("tick", b""), ("ingest-node-id", worker)],
            )

    def minute(self, copies: int = 0, new_late: int = 0) -> None:
        """A minute of readings, its end, and afterwards copies of its readings and ones that were never sent."""
        start = self.now_ms
        for second in range(0, 60, 5):
            for device in DEVICES:
                self.say(device, start + second * 1000, METRICS, times=1 + (second == 20))
        self.refuse(DEVICES[0])
        self.now_ms = start + MINUTE_MS + 15_000
        self.tick()
        for i in range(copies):
            self.say(DEVICES[i % 3], start + 5_000 * (i % 12), METRICS)
        for i in range(new_late):
            self.say(DEVICES[i % 3], start + 5_000 * i + 1, METRICS, times=2)
        self.now_ms = start + MINUTE_MS

    def flush(self) -> None:
        assert self.producer.flush(60) == 0


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, logins: Logins) -> Iterator[Topology]:
    """Ten minutes, of which two were read before the archive caught up; the archive is killed half way."""
    folder: Path = tmp_path_factory.mktemp("archive")
    windows = {"event_age_max_secs": 300_000_000}  # the log is of a day in the past, stamped so
    with topology(folder, kafka_bootstrap, logins.owner, "mqtt://127.0.0.1:1", windows=windows) as flows:
        as_writer(flows, logins.writer)
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
    ((still_open, behind),) = flows.ask(
        """select sum(open), max(position) filter (where flow = 'minute_rollups') > max(position) + 100
           from ledger join progress using (flow, topic, partition)"""
    )
    expected = 10 * (13 * 3 * 3 + 20 * 3 + 8 * 3)
    return still_open == 0 and not behind and archived(flows) == expected


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


FORBIDDEN = {
    "reader": [
        "insert into late_waiting values ('f', 't', 0, 0, 'm', 'd', now(), 1, now())",
        "update rollups_1m set count = 0",
        "delete from progress",
        "create table mine (a int)",
        "select expire_partitions('rollups_1m')",
    ],
    "writer": [
        "drop table rollups_1m",
        "alter table rollups_1m add mine int",
        "truncate raw_telemetry",
        "delete from rollups_1m",
        "delete from raw_telemetry",
        "delete from ledger",
        "update schema_migrations set checksum = ''",
        "update time_tables set keep = null",
        "create table mine (a int)",
        "select expire_partitions('rollups_1m')",
        "select grant_roles()",
    ],
}


@pytest.mark.parametrize(("role", "statement"), [(role, one) for role, many in FORBIDDEN.items() for one in many])
def test_a_role_may_not(logins: Logins, role: str, statement: str) -> None:
    """Readers change nothing; writers neither take away nor change what a table is."""
    with (
        psycopg.connect(getattr(logins, role), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


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


def test_where_roles_may_not_be_made_the_rest_holds(admin_url: str) -> None:
    """On a managed server: one note says what an administrator must run; when it was, the function grants."""
    name = f"u{uuid.uuid4().hex[:10]}"
    mine, their_writer, their_reader = (sql.Identifier(f"{name}{end}") for end in ("", "_w", "_r"))
    with fresh_database(admin_url) as conninfo, psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login password 'of-a-test'").format(mine))
        try:
            own = make_conninfo(conninfo, user=name, password="of-a-test")
            with psycopg.connect(conninfo, autocommit=True) as its_owner:
                its_owner.execute(sql.SQL("grant create on schema public to {}").format(mine))
            migrate(own)
            ask = sql.SQL("select grant_roles({}, {})").format(f"{name}_w", f"{name}_r")
            notes: list[str] = []
            with psycopg.connect(own, autocommit=True) as connection:
                connection.add_notice_handler(lambda notice: notes.append(notice.message_primary or ""))
                assert connection.execute(ask).fetchone() == (False,)
                assert f"create role {name}_w nologin; create role {name}_r nologin" in "".join(notes)
                admin.execute(sql.SQL("create role {}; create role {}").format(their_writer, their_reader))
                assert connection.execute(ask).fetchone() == (True,)
                granted = "select has_table_privilege(%s, 'rollups_1m', %s)"
                assert connection.execute(granted, [f"{name}_w", "insert"]).fetchone() == (True,)
                assert connection.execute(granted, [f"{name}_r", "insert"]).fetchone() == (False,)
                assert connection.execute(granted, [f"{name}_r", "select"]).fetchone() == (True,)
        finally:
            with psycopg.connect(conninfo, autocommit=True) as its_owner:
                for role in (f"{name}_w", f"{name}_r", name):
                    with contextlib.suppress(psycopg.errors.UndefinedObject):
                        its_owner.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(role)))
                        its_owner.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))
