"""Migrations: each applied once, wholly or not at all, in order, whoever runs them and however often."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from infra.migrations import MIGRATIONS, migrate, migrations
from schemas.errors import OperatorError
from tests.connectors.timescale_tables import rows

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A history of two migrations."""
    (tmp_path / "0001_things.sql").write_text("create table things (id int); insert into things values (1);")
    (tmp_path / "0002_more.sql").write_text("insert into things values (2);")
    return tmp_path


def applied(conninfo: str) -> list[tuple[object, ...]]:
    return rows(conninfo, "select number, name from schema_migrations")


def test_each_is_applied_once_and_in_order(database_url: str, folder: Path) -> None:
    """A second run finds nothing to do; a file added later is applied alone."""
    assert [one.name for one in migrate(database_url, folder)] == ["0001_things.sql", "0002_more.sql"]
    assert migrate(database_url, folder) == []
    (folder / "0010_rest.sql").write_text("insert into things values (10);")
    assert [one.number for one in migrate(database_url, folder)] == [10]
    assert rows(database_url, "select id from things") == [(1,), (10,), (2,)]


def test_several_at_once_apply_each_once(database_url: str, folder: Path) -> None:
    """Under a lock: the others wait, and find it done."""
    (folder / "0001_things.sql").write_text(
        "select pg_sleep(0.1); create table things (id int); insert into things values (1);"
    )
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(lambda _: [one.number for one in migrate(database_url, folder)], range(4))
    done = [number for run in runs for number in run]
    assert sorted(done) == [1, 2]
    assert rows(database_url, "select id from things") == [(1,), (2,)]


def test_one_that_fails_leaves_nothing_behind(database_url: str, folder: Path) -> None:
    """Neither its first half nor a note of it; those before it stay. Put right, it is applied."""
    (folder / "0003_broken.sql").write_text("insert into things values (3); insert into thing values (4);")
    with pytest.raises(OperatorError, match=r'0003_broken\.sql failed, nothing of it was applied: relation "thing"'):
        migrate(database_url, folder)
    assert rows(database_url, "select id from things") == [(1,), (2,)]
    (folder / "0003_broken.sql").write_text("insert into things values (3);")
    assert [one.number for one in migrate(database_url, folder)] == [3]


def test_an_applied_file_that_was_changed_is_refused(database_url: str, folder: Path) -> None:
    """What it did cannot be known any more. Line ends of the checkout do not count as a change."""
    migrate(database_url, folder)
    sql = (folder / "0001_things.sql").read_bytes()
    (folder / "0002_more.sql").write_bytes(b"insert into things\r\nvalues (2);")
    with pytest.raises(OperatorError, match=r"0002_more\.sql was changed after it was applied"):
        migrate(database_url, folder)
    (folder / "0002_more.sql").write_bytes(b"insert into things values (2);")
    (folder / "0001_things.sql").write_bytes(sql.replace(b"\n", b"\r\n"))
    assert migrate(database_url, folder) == []


def test_an_applied_file_that_is_missing_is_refused(database_url: str, folder: Path) -> None:
    """The database is newer than this checkout, or the file was deleted."""
    migrate(database_url, folder)
    (folder / "0001_things.sql").unlink()
    with pytest.raises(OperatorError, match=r"0001_things\.sql was applied to this database and is missing here"):
        migrate(database_url, folder)


def test_a_number_below_the_newest_applied_is_refused(database_url: str, folder: Path) -> None:
    """Two branches that were merged: the order on this database would be another than on a new one."""
    migrate(database_url, folder)
    (folder / "0002_more.sql").rename(folder / "0005_more.sql")
    with pytest.raises(OperatorError):
        migrate(database_url, folder)
    (folder / "0005_more.sql").rename(folder / "0002_more.sql")
    (folder / "0000_early.sql").write_text("select 1;")
    with pytest.raises(OperatorError, match=r"0000_early\.sql comes before migrations that are applied already"):
        migrate(database_url, folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [("0002_other.sql", "have one number"), ("0003.sql", "is named like"), ("03x_a.sql", "is named like")],
)
def test_a_file_with_a_wrong_name_is_refused(folder: Path, name: str, said: str) -> None:
    """Before any database is asked."""
    (folder / name).write_text("select 1;")
    with pytest.raises(OperatorError, match=said):
        migrations(folder)


def test_a_server_that_is_away_is_one_message() -> None:
    """With its place, and without the password."""
    with pytest.raises(OperatorError, match=r"127\.0\.0\.1:1/nothing cannot be used") as refused:
        migrate("postgresql://user:hunter2@127.0.0.1:1/nothing")
    assert "hunter2" not in str(refused.value)


def test_a_rollup_table_of_ones_own_is_one_line(database_url: str, tmp_path: Path) -> None:
    """It has the columns, the key and the index of the first one; an odd name is a name."""
    for path in MIGRATIONS.glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "9001_mine.sql").write_text(
        """select create_rollup_table('rollups_5m'); select create_rollup_table('Odd "one"');"""
    )
    migrate(database_url, tmp_path)
    columns = (
        "select attname, atttypid::regtype::text, attnotnull from pg_attribute "
        "where attrelid = '{}'::regclass and attnum > 0 order by attnum"
    )
    first = rows(database_url, columns.format("rollups_1m"))
    assert len(first) == 13
    assert rows(database_url, columns.format("rollups_5m")) == first
    assert rows(database_url, columns.format('"Odd ""one"""')) == first


def test_late_readings_are_told_apart_by_their_bits_and_their_flow(database_url: str) -> None:
    """0.0 and -0.0 are two readings; one reading is late in each flow that has rows of its own."""
    migrate(database_url)
    insert = "insert into late_readings values ('d', 'm', 'epoch', %s, %s, 0, 0, now()) on conflict do nothing"
    with psycopg.connect(database_url) as connection:
        connection.execute("select make_partitions('late_readings', array['epoch'::timestamptz])")
        for value, flow, new in [(0.0, "a", 1), (-0.0, "a", 1), (0.0, "b", 1), (0.0, "a", 0), (-0.0, "b", 1)]:
            assert connection.execute(insert, [value, flow]).rowcount == new


def test_every_key_of_a_table_of_readings_holds_its_time(database_url: str) -> None:
    """So that it can be partitioned by time later, on PostgreSQL as on TimescaleDB, without another key."""
    migrate(database_url)
    unique = (
        "select c.relname, pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indrelid "
        "where i.indisunique and c.relname in ('rollups_1m', 'late_readings')"
    )
    found = dict(rows(database_url, unique))
    assert "bucket" in found["rollups_1m"]
    assert "event_time" in found["late_readings"]
