"""What a flow is told at start: credentials, tables and settings that would not do, each in one message."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from connectors import timescale_connection
from connectors.timescale_rollups import check_tables
from schemas.errors import OperatorError
from tests.connectors.timescale_tables import TOPIC, assert_no_secret, claimed, items, seal, store, undisturbed

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


def refusal(conninfo: str, **changes) -> str:
    with pytest.raises(OperatorError) as refused:
        store(conninfo, **changes).standing(TOPIC)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_wrong_credentials_are_one_message_without_them(migrated_url: str) -> None:
    """What the server said is passed on; passwords, right or wrong, are not."""
    message = refusal(make_conninfo(migrated_url, user="no-such-user", password="hunter2hunter2"))
    assert "hunter2" not in message
    assert_no_secret(migrated_url, message)
    assert "conninfo" in message


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://u:hunter2@x@127.0.0.1:1/db",
        "postgresql://u:hunter2/x@127.0.0.1:1/db",
        "host=127.0.0.1 password=hunter2 x",
        "host=127.0.0.1 passwort=hunter2",
        "hunter2",
    ],
)
def test_a_conninfo_that_cannot_be_read_does_not_leak_its_password(conninfo: str) -> None:
    """libpq would quote the part it stumbles over, which can be the password."""
    with pytest.raises(OperatorError, match="cannot be read") as refused:
        timescale_connection.connect_or_say(conninfo, "test")
    assert "hunter2" not in str(refused.value)


def test_a_missing_table_says_which_command_makes_it(migrated_url: str) -> None:
    """At start, and in the midst, where someone dropped it."""
    of = store(migrated_url)
    claim = claimed(of)
    check_tables(migrated_url, "rollups_1m")
    with pytest.raises(OperatorError, match=r"rollups_5m is missing: run \./justw migrate"):
        check_tables(migrated_url, "rollups_5m")
    with psycopg.connect(migrated_url) as connection:
        connection.execute("drop table rollups_1m cascade")  # views too
    with pytest.raises(OperatorError, match=r"run \./justw migrate"):
        seal(of, claim, claim.progress, items()[:1])
    with psycopg.connect(migrated_url) as connection:
        connection.execute("drop table progress cascade")
    assert "run ./justw migrate" in refusal(migrated_url)
    with pytest.raises(OperatorError, match=r"progress is missing: run \./justw migrate"):
        check_tables(migrated_url, "rollups_1m")


def test_a_table_of_another_shape_is_refused_at_start(migrated_url: str) -> None:
    """An aggregate without its migration, or a column of another type, is named."""
    with psycopg.connect(migrated_url) as connection:
        connection.execute("select create_rollup_table('rollups_5m')")
        connection.execute("alter table rollups_5m alter column revision type bigint")
    with pytest.raises(OperatorError, match="column revision must be int, and is bigint"):
        check_tables(migrated_url, "rollups_5m")
    with psycopg.connect(migrated_url) as connection:
        connection.execute("alter table rollups_5m drop column revision")
    with pytest.raises(OperatorError, match="column revision must be int, and is missing"):
        check_tables(migrated_url, "rollups_5m")


def test_settings_that_would_count_wrongly_are_refused(migrated_url: str) -> None:
    """Another window length, another table, a second flow into one table, rows without progress."""
    undisturbed(migrated_url)
    assert "windows of 300 s" in refusal(migrated_url, shape="windows of 300 s")
    assert "rollups_5m" in refusal(migrated_url, output="rollups_5m")
    assert "a second time" in refusal(migrated_url, flow="copy")
    with psycopg.connect(migrated_url) as connection:
        connection.execute("delete from progress")
    assert "has rows" in refusal(migrated_url)


def test_progress_that_is_gone_for_one_partition_is_refused(migrated_url: str) -> None:
    """It would begin anew, and count what the ledger has of it a second time."""
    undisturbed(migrated_url)
    with psycopg.connect(migrated_url) as connection:
        connection.execute(
            """insert into ledger (flow, topic, partition, messages)
               select flow, topic, 7, 1 from progress order by partition limit 1"""
        )
    assert "partitions [7]" in refusal(migrated_url)


def test_a_flow_that_counted_nothing_stands_in_nobodys_way(migrated_url: str) -> None:
    """A name that was mistyped once: its progress is there, its readings are not."""
    claimed(store(migrated_url, "minute_rolups"))
    assert store(migrated_url).standing(TOPIC) == {}


def test_a_database_that_is_not_utf8_is_refused(migrated_url: str) -> None:
    """It would keep bytes, and count an id's characters wrongly, or refuse an emoji at night."""
    name = f"{conninfo_to_dict(migrated_url)['dbname']}_ascii"
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(f"create database {name} template template0 encoding 'SQL_ASCII' locale 'C'".encode())
        try:
            with pytest.raises(OperatorError, match="encoded in SQL_ASCII; device ids need UTF8"):
                check_tables(make_conninfo(migrated_url, dbname=name), "rollups_1m")
        finally:
            connection.execute(f"drop database {name} with (force)".encode())
