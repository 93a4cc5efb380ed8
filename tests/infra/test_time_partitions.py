"""Tables divided by time on plain PostgreSQL: every reading finds its place, and what expires is not missing."""

import shutil
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.maintain import maintain
from infra.migrations import MIGRATIONS, migrate
from infra.verify import ledger
from infra.verify.reading import snapshot
from schemas.settings import DatabaseSettings, RetentionSettings, Settings
from tests.connectors import outcomes as drawn
from tests.connectors.outcomes import LENGTH_MS, Reading, Step
from tests.connectors.timescale_tables import TOPIC, claimed, emptied, rows, seal, store

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

NOW_MS = 1_763_700_000_000 // LENGTH_MS * LENGTH_MS
DAY_MS = 86_400_000
ROWS = "select device_id, metric, bucket, count, revision from rollups_1m"


def steps_at(ages_days: Sequence[float], late_ages_days: Sequence[float] = ()) -> list[Step]:
    """One slice a reading: some on time, in windows as old as that, then late ones of windows that were never open."""
    made = []
    ages = [(age, False) for age in sorted(ages_days, reverse=True)] + [(age, True) for age in late_ages_days]
    for offset, (age, late) in enumerate(ages):
        bucket = (NOW_MS - round(age * DAY_MS)) // LENGTH_MS * LENGTH_MS
        reading = Reading(offset, f"device-{offset}", "temperature", bucket, 21.5, late)
        closes = NOW_MS + LENGTH_MS if late else bucket
        made.append(Step(offset + 1, closes, () if late else (reading,), (reading,) if late else (), 0))
    return made


def sealed(conninfo: str, steps: list[Step]) -> None:
    of = store(conninfo)
    claim = claimed(of)
    seal(of, claim, claim.progress, drawn.outcomes(steps))
    of.close()


def found_rows(conninfo: str) -> int:
    return len(rows(conninfo, ROWS))


ages = st.lists(st.one_of(st.floats(0, 8), st.floats(0, 3660), st.sampled_from([0.0, 1.0, 7.0, 365.0])), max_size=5)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ages, ages)
def test_a_reading_of_any_age_finds_its_place(migrated_url: str, on_time, late) -> None:
    """On time or late, of yesterday or of ten years ago, several days in one transaction, partitions there or not."""
    emptied(migrated_url)
    steps = steps_at(list(dict.fromkeys(on_time)), late)
    if steps:
        sealed(migrated_url, steps)
    assert found_rows(migrated_url) == len(steps)


def test_writers_that_lack_the_same_partitions_all_write(migrated_url: str) -> None:
    """Four partitions of the log, one lock a table, the same twenty days: nobody fails, every row is there once."""
    failed: list[BaseException] = []

    def write(partition: int) -> None:
        try:
            steps = [
                replace(s, on_time=tuple(replace(r, device_id=f"{partition}-{r.device_id}") for r in s.on_time))
                for s in steps_at(range(20))
            ]
            of = store(migrated_url)
            claim = claimed(of, partition)
            seal(of, claim, claim.progress, drawn.outcomes(steps, partition))
            of.close()
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(partition,)) for partition in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join(120)
    assert not failed
    assert found_rows(migrated_url) == 80
    assert rows(migrated_url, "select count(*) from rollups_1m where tableoid = 'rollups_1m'::regclass") == [(0,)]


def test_rows_of_before_are_divided_with_their_table(database_url: str, tmp_path: Path) -> None:
    """A database of 0001, with rows: the same rows to the bit, in partitions; a table of one's own too."""
    shutil.copy(MIGRATIONS / "0001_base_tables.sql", tmp_path)
    migrate(database_url, tmp_path)
    with psycopg.connect(database_url) as connection:
        connection.execute("select create_rollup_table('rollups_5m')")
        for table in ("rollups_1m", "rollups_5m"):
            connection.execute(
                f"insert into {table} select '2025-01-01'::timestamptz + i * interval '7 hours', 'd', 'm', 1, "
                "i / 3.0, 0, -0.0, 1, 1e-310, 1, now(), now(), 3 from generate_series(1, 50) as i".encode()
            )
    before = [rows(database_url, f"select * from {table}") for table in ("rollups_1m", "rollups_5m")]
    migrate(database_url)
    assert [rows(database_url, f"select * from {table}") for table in ("rollups_1m", "rollups_5m")] == before
    parts = (
        "select inhparent::regclass::text, count(*) from pg_inherits join pg_class c on c.oid = inhrelid "
        "where c.relkind = 'r' group by 1"
    )
    found = dict(rows(database_url, parts))
    assert found["rollups_1m"] == found["rollups_5m"] == 16  # 15 days and today
    key = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'rollups_1m_pkey'"
    assert rows(database_url, key) == [("PRIMARY KEY (device_id, metric, bucket)",)]


def keeping(conninfo: str, minutes_days: int) -> Settings:
    return Settings(
        database=DatabaseSettings(conninfo=conninfo),
        retention=RetentionSettings(minutes_days=minutes_days, readings_days=8),
    )


def findings(conninfo: str) -> list[str]:
    with snapshot(conninfo) as instant:
        books = ledger.read_books(instant, "minute_rollups", TOPIC, "rollups_1m")
    return [str(finding) for finding in ledger.check_books(books)]


def dropped(said: Iterable[str]) -> set[str]:
    return {line.split(":")[0] for line in said if ": dropped" in line}


def aged(conninfo: str) -> float:
    """Days from NOW_MS to the database's own now, since retention counts from there."""
    return float(rows(conninfo, f"select extract(epoch from now()) - {NOW_MS / 1000}")[0][0]) / 86_400


def test_expired_days_are_expired_and_not_missing(migrated_url: str) -> None:
    """Retention drops rows and late readings; verify finds nothing wrong, and a row lost by other means still."""
    sealed(migrated_url, steps_at([0, 1, 20, 40], [0, 21, 41]))
    assert findings(migrated_url) == []
    kept_days = int(aged(migrated_url)) + 10
    said = list(maintain(keeping(migrated_url, kept_days)))
    assert dropped(said) == {"rollups_1m", "late_readings"}
    assert found_rows(migrated_url) == 3
    assert findings(migrated_url) == []
    assert list(maintain(keeping(migrated_url, kept_days))) == []
    with psycopg.connect(migrated_url) as connection:
        connection.execute("delete from rollups_1m where device_id = 'device-3'")
    assert len(findings(migrated_url)) == 1


def test_what_was_dropped_without_a_note_is_missing(migrated_url: str) -> None:
    """The same rows, dropped by hand: verify says so."""
    sealed(migrated_url, steps_at([0, 40]))
    with psycopg.connect(migrated_url) as connection:
        connection.execute(
            f"delete from rollups_1m where bucket < to_timestamp({NOW_MS / 1000}) - interval '1 day'".encode()
        )
    assert len(findings(migrated_url)) == 1


def test_a_reader_at_work_puts_a_drop_off_and_holds_no_writer_up(migrated_url: str) -> None:
    """Retention gives up after two seconds, says so, and does it the next time."""
    sealed(migrated_url, steps_at([0, 40]))
    kept = keeping(migrated_url, int(aged(migrated_url)) + 10)
    with psycopg.connect(migrated_url) as reader:
        reader.execute(ROWS.encode())
        said = list(maintain(kept))
        assert any("rollups_1m: somebody reads it" in line for line in said), said
    assert dropped(maintain(kept)) == {"rollups_1m"}


@pytest.mark.parametrize("name", ["minutes_days", "readings_days"])
def test_what_is_accepted_may_not_be_older_than_what_is_kept(name: str) -> None:
    """One message at the start of any process, with both settings in it."""
    with pytest.raises(ValueError, match=rf"retention.{name} is 7.*event_age_max_secs.*less than 604800 s"):
        Settings(retention=RetentionSettings(**{name: 7}))


def test_time_to_come_has_partitions_ahead(migrated_url: str) -> None:
    """Today's and tomorrow's: at midnight no writer waits; nor does the test mind one that passes while it runs."""
    ((began,),) = rows(migrated_url, "select now()::text")
    list(maintain(Settings(database=DatabaseSettings(conninfo=migrated_url))))
    made: list[tuple[Any, ...]] = rows(
        migrated_url,
        f"select name, make_partitions(name, array[now(), '{began}'::timestamptz + width]) from time_tables",
    )
    assert len(made) >= 6
    assert {count for _, count in made} == {0}


def test_the_planner_is_told_of_tables_and_not_of_partitions_alone(migrated_url: str) -> None:
    """Autovacuum never looks at a table that is made up of partitions: maintaining it does, once a day."""
    list(maintain(Settings(database=DatabaseSettings(conninfo=migrated_url))))
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("select pg_stat_clear_snapshot()")
        found = connection.execute(
            "select last_analyze is not null from pg_stat_user_tables where relname = 'rollups_1m'"
        )
        assert found.fetchone() == (True,)
