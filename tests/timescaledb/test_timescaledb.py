"""The store on a real TimescaleDB: hypertables, columnstore, late revisions in it, retention, jobs, same answers."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors import timescale_edition
from infra.maintain import maintain
from infra.migrations import migrate
from infra.queries import read_queries
from infra.verify import ledger
from infra.verify.reading import snapshot
from schemas.settings import DatabaseSettings, RetentionSettings, Settings
from tests.connectors import outcomes as drawn
from tests.connectors.outcomes import FIRST_BUCKET, LENGTH_MS, Reading, Step
from tests.connectors.timescale_tables import TOPIC, claimed, emptied, rows, seal, store
from tests.timescaledb.server import timescaledb

pytestmark = [pytest.mark.embedded]

FIRST = datetime.fromtimestamp(FIRST_BUCKET / 1000, UTC)
SUMMARY = "select device_id, count, mean, m2, min, max, first, last, revision from {} order by 1, 2"


@pytest.fixture(scope="module")
def conninfo() -> Iterator[str]:
    with timescaledb() as found:
        migrate(found)
        yield found


@pytest.fixture
def connection(conninfo: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    emptied(conninfo)
    with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as found:
        found.execute(
            "delete from rollups_1h; delete from rollups_1d; delete from hour_changes; delete from day_changes"
        )
        yield found


def slices(minutes: int, late: bool, devices: Sequence[str] = ("boiler-7",)) -> list[Step]:
    """A minute a slice, each with a reading on time; then, if ``late``, one that revises boiler-7's first minute."""
    made = []
    for i in range(minutes):
        bucket = FIRST_BUCKET + i * LENGTH_MS
        on_time = tuple(Reading(i, device, "temperature", bucket, float(i), False) for device in devices)
        made.append(Step(i + 1, bucket, on_time, (), 0))
    if late:
        reading = Reading(minutes, "boiler-7", "temperature", FIRST_BUCKET + 30_000, 100.0, True)
        made.append(Step(minutes + 1, FIRST_BUCKET + minutes * LENGTH_MS, (), (reading,), 0))
    return made


def settings_for(conninfo: str, **retention: Any) -> Settings:
    return Settings(database=DatabaseSettings(conninfo=conninfo), retention=RetentionSettings(**retention))


def sealed(conninfo: str, made: list[Step], one_by_one: bool = False) -> None:
    of = store(conninfo)
    claim = claimed(of)
    before, items = claim.progress, drawn.outcomes(made)
    for some in [[item] for item in items] if one_by_one else [items]:
        seal(of, claim, before, some)
        before = some[-1].progress
    of.close()


def test_what_is_divided_by_time_is_a_hypertable(connection) -> None:
    """Rollups of every length, late readings, flags, raw telemetry, rejections; with the key they always had."""
    found = connection.execute("select hypertable_name from timescaledb_information.hypertables").fetchall()
    assert {name for (name,) in found} >= {
        "rollups_1m",
        "rollups_1h",
        "rollups_1d",
        "late_readings",
        "anomaly_flags",
        "raw_telemetry",
        "rejections",
    }
    assert connection.execute("select make_partitions('rollups_1m', array[now()])").fetchone() == (0,)
    assert timescale_edition.edition(connection).startswith("TimescaleDB 2.")


def test_where_the_edition_refuses_the_rest_is_done(tmp_path: Path) -> None:
    """No columnstore, no jobs: hypertables, hours and retention all the same, by ./justw maintain."""
    with timescaledb(str(tmp_path / "data")) as found:
        migrate(found)
        sealed(found, slices(60, late=True))
        with psycopg.connect(found, autocommit=True, prepare_threshold=None) as connection:
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                connection.execute("select add_job('now'::regproc, interval '1 hour')")
            connection.execute("update hour_changes set at = '2025-01-01'")
            list(maintain(settings_for(found)))
            assert connection.execute("select sum(count) from rollups_1h").fetchone() == (61,)
            jobs = "select count(*) from timescaledb_information.jobs where job_id >= 1000"
            assert connection.execute(jobs).fetchone() == (0,)
            age = datetime.now(UTC) - FIRST
            list(maintain(settings_for(found, minutes_days=max(8, age.days - 5))))
            assert connection.execute("select count(*) from rollups_1m").fetchone() == (0,)


def test_the_apache_edition_is_told_apart(connection) -> None:
    """By its licence setting, which the build in these tests does not have: the question is put in its place."""
    with connection.transaction(force_rollback=True):
        connection.execute(
            "create or replace function store_edition() returns text language sql stable as $$ select 'apache' $$"
        )
        assert "Apache edition" in timescale_edition.edition(connection)
        assert connection.execute("select keep_columnstore('rollups_1m'), keep_job()").fetchone() == (False, False)


def test_a_writer_writes_as_it_does_elsewhere(conninfo: str, connection) -> None:
    """By COPY and by revision; the ledger agrees, hours are combined from what it noted."""
    sealed(conninfo, slices(90, late=True), one_by_one=True)
    first = rows(conninfo, "select count, max, last, revision from rollups_1m where revision > 0")
    assert first == [(2, (100.0).hex(), (100.0).hex(), 1)]
    with snapshot(conninfo) as instant:
        books = ledger.read_books(instant, "minute_rollups", TOPIC, "rollups_1m")
    assert [str(finding) for finding in ledger.check_books(books)] == []
    connection.execute("update hour_changes set at = '2025-01-01'")
    list(maintain(settings_for(conninfo)))
    assert connection.execute("select sum(count) from rollups_1h").fetchone() == (91,)
    assert connection.execute("select count(*) from latest").fetchone() == (1,)


def test_a_late_reading_revises_its_row_in_the_columnstore(conninfo: str, connection) -> None:
    """A chunk that was compressed takes revisions and new rows, and keeps other series; the same rows, to the bit."""
    made = slices(20, late=True, devices=("boiler-7", "fan-3", "pump-2"))
    sealed(conninfo, made)
    expected = rows(conninfo, SUMMARY.format("rollups_1m"))
    emptied(conninfo)
    list(maintain(settings_for(conninfo)))
    of = store(conninfo)
    claim = claimed(of)
    items = drawn.outcomes(made)
    seal(of, claim, claim.progress, items[:10])
    assert compressed(connection, "rollups_1m") == 1
    seal(of, claim, items[9].progress, items[10:])
    of.close()
    assert rows(conninfo, SUMMARY.format("rollups_1m")) == expected


def compressed(connection: psycopg.Connection[tuple[Any, ...]], table: str) -> int:
    """Move every chunk of a table into the columnstore; how many lie there."""
    connection.execute(f"select compress_chunk(c, if_not_compressed => true) from show_chunks('{table}') as c".encode())
    found = connection.execute(
        "select count(*) from timescaledb_information.chunks where hypertable_name = %s and is_compressed", [table]
    ).fetchone()
    assert found is not None
    return int(found[0])


def test_the_columnstore_is_segmented_by_series_and_ordered_by_time(conninfo: str, connection) -> None:
    """With a policy of the age that the settings say; taken away where they say never."""
    list(maintain(settings_for(conninfo, columnstore_after_days=9)))
    found = connection.execute(
        "select attname, segmentby_column_index, orderby_column_index "
        "from timescaledb_information.compression_settings where hypertable_name = 'rollups_1m' "
        "order by 2 nulls last, 3"
    ).fetchall()
    assert [row for row in found if row[1] or row[2]] == [
        ("device_id", 1, None),
        ("metric", 2, None),
        ("bucket", None, 1),
    ]
    policy = (
        "select config ->> 'compress_after' from timescaledb_information.jobs "
        "where hypertable_name = 'rollups_1m' and proc_name like '%compression'"
    )
    assert connection.execute(policy).fetchall() == [("9 days",)]
    list(maintain(settings_for(conninfo, columnstore_after_days=None)))
    assert connection.execute(policy).fetchall() == []


def test_retention_drops_chunks_and_verify_agrees(conninfo: str, connection) -> None:
    """By the project's own note of what expired, on a hypertable as on partitions."""
    sealed(conninfo, slices(3, late=True))
    age = datetime.now(UTC) - FIRST
    list(maintain(settings_for(conninfo, minutes_days=age.days + 30)))
    assert connection.execute("select count(*) from rollups_1m").fetchone() == (3,)
    said = list(maintain(settings_for(conninfo, minutes_days=max(8, age.days - 5))))
    assert any(line.startswith("rollups_1m: dropped") for line in said), said
    assert connection.execute("select count(*) from rollups_1m").fetchone() == (0,)
    with snapshot(conninfo) as instant:
        books = ledger.read_books(instant, "minute_rollups", TOPIC, "rollups_1m")
    assert [str(finding) for finding in ledger.check_books(books)] == []
    connection.execute("update time_tables set expired_until = null")


def test_the_database_maintains_itself_by_a_job(conninfo: str, connection) -> None:
    """One job, however often it is asked for; it computes the hours that have notes."""
    for _ in range(2):
        list(maintain(settings_for(conninfo)))
    jobs = connection.execute(
        "select job_id from timescaledb_information.jobs where proc_name = 'maintain_job'"
    ).fetchall()
    assert len(jobs) == 1
    sealed(conninfo, slices(60, late=False))
    connection.execute("update hour_changes set at = '2025-01-01'")
    connection.execute(f"call run_job({jobs[0][0]})".encode())
    assert connection.execute("select sum(count) from rollups_1h").fetchone() == (60,)


def test_the_ten_questions_have_answers(conninfo: str, connection) -> None:
    """Each runs on hypertables, half of them in the columnstore, and finds the device."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    connection.execute("insert into devices values ('boiler-7', 'berlin', 'Europe/Berlin') on conflict do nothing")
    connection.execute(
        "insert into rollups_1m select b, 'boiler-7', 'temperature', 6, 20, 1, 19, 21, 20, 20, b, b, 0 "
        "from generate_series(%s::timestamptz, %s, interval '1 minute') as b",
        [now - timedelta(days=2), now - timedelta(minutes=1)],
    )
    connection.execute(
        "insert into hour_changes (hour, first_bucket, last_bucket) "
        "select date_bin('1 hour', bucket, 'epoch'), min(bucket), max(bucket) from rollups_1m group by 1"
    )
    list(maintain(settings_for(conninfo)))
    given = {"device": "boiler-7", "metric": "temperature", "site": "berlin"}
    answers = {}
    for query in read_queries():
        arguments = {name: given[name] for name in query.parameters}
        answers[query.name] = len(connection.execute(query.sql.encode(), arguments).fetchall())
    assert len(answers) == 10
    empty = {name for name, count in answers.items() if not count}
    assert empty <= {"silent", "gaps", "late"}, answers
