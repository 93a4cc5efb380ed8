"""What writers and readers may not do, and what happens where roles may not be made (0008_roles.sql)."""

import contextlib
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from infra.migrations import migrate
from tests.databases import fresh_database
from tests.logins import Logins, fresh_logins

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


@pytest.fixture(scope="module")
def logins(admin_url: str) -> Iterator[Logins]:
    with fresh_logins(admin_url) as made:
        yield made


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


def test_a_writer_may_say_where_a_device_stands(logins: Logins) -> None:
    """The device's days are then made anew, by the function's owner."""
    with psycopg.connect(logins.writer, autocommit=True) as connection:
        connection.execute("insert into devices (device_id, timezone) values ('d', 'Europe/Oslo')")
        connection.execute("update devices set timezone = 'Asia/Kolkata' where device_id = 'd'")


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
