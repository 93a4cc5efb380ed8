"""Hours and days are what minutes say, however these came: new, in disorder, revised late, in zones that change."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.migrations import migrate
from tests.connectors import outcomes as drawn
from tests.connectors.timescale_tables import claimed, emptied, seal, store
from tests.databases import fresh_database

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

# Clocks change in Berlin, and by half an hour at Lord Howe; Kathmandu is 5:45 ahead, Kiritimati 14:00, Honolulu behind.
ZONES = ["Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Honolulu", None]
DEVICES = ["boiler-7", "kettle", "lamp"]
START = datetime(2025, 10, 25, 10, tzinfo=UTC)  # the night after it Berlin's clocks go back
COLUMNS = "device_id, metric, bucket, count, mean, m2, min, max, first, last, first_ts, last_ts, revision"
WHOLE = """
    select device_id, metric, starts as bucket, (p).*, revision from (
        select device_id, metric, {start} as starts, sum(revision)::int as revision,
            combine(count, mean, m2, min, max, first, last, first_ts, last_ts order by bucket) as p
        from rollups_1m left join devices using (device_id) group by 1, 2, 3) as whole
"""
HOUR = "date_bin('1 hour', bucket, 'epoch')"
DAY = "date_trunc('day', bucket, coalesce(timezone, 'UTC'))"

shared_database = settings(
    deadline=None,
    max_examples=max(settings.default.max_examples // 5, 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Minute:
    """A minute of a device, a minute or a week after START; ``late`` readings revise it later."""

    device: str
    minute: int
    value: float
    late: int


minutes = st.lists(
    st.builds(
        Minute,
        st.sampled_from(DEVICES),
        st.one_of(st.integers(0, 90), st.integers(0, 4 * 1440)),
        st.floats(-100, 100),
        st.sampled_from([0, 0, 0, 1, 2]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda m: (m.device, m.minute),
)
moves = st.tuples(st.sampled_from(DEVICES), st.sampled_from(ZONES))
scripts = st.lists(st.one_of(minutes, moves, st.none()), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def conninfo(admin_url: str) -> Iterator[str]:
    with fresh_database(admin_url) as found:
        migrate(found)
        yield found


def cleared(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    connection.execute(
        "truncate rollups_1m, rollups_1h, rollups_1d, hour_changes, day_changes, series, devices, progress, ledger, "
        "late_readings"
    )


def insert(connection: psycopg.Connection[tuple[Any, ...]], some: list[Minute]) -> None:
    """As a writer does: rows and their notes in one transaction, late readings one by one with theirs."""
    with connection.transaction():
        for one in some:
            at = START + timedelta(minutes=one.minute)
            connection.execute("select make_partitions('rollups_1m', array[%(at)s])", {"at": at})
            arguments = {"at": at, "device": one.device, "value": one.value}
            connection.execute(
                "insert into rollups_1m as r values (%(at)s, %(device)s, 'temperature', 1, %(value)s, 0, %(value)s, "
                "%(value)s, %(value)s, %(value)s, %(at)s, %(at)s, 0) on conflict (device_id, metric, bucket) "
                "do update set count = r.count + 1, m2 = r.m2 + 1, revision = r.revision + 1",
                arguments,
            )
            note = (
                "insert into hour_changes (hour, device_id, metric, first_bucket, last_bucket, at) "
                "values (date_bin('1 hour', %(at)s, 'epoch'), {}, %(at)s, %(at)s, '2025-01-01')"
            )
            connection.execute(note.format("null, null").encode(), arguments)
            for _ in range(one.late):
                connection.execute(
                    "update rollups_1m set count = count + 1, m2 = m2 + 1, revision = revision + 1 "
                    "where bucket = %(at)s and device_id = %(device)s",
                    arguments,
                )
                connection.execute(note.format("%(device)s, 'temperature'").encode(), arguments)


def move(connection: psycopg.Connection[tuple[Any, ...]], device: str, zone: str | None) -> None:
    connection.execute(
        "insert into devices values (%s, 'site', %s) "
        "on conflict (device_id) do update set timezone = excluded.timezone",
        [device, zone],
    )


def refreshed(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    connection.execute("update day_changes set at = '2025-01-01'")
    while connection.execute("select refresh_rollups()").fetchone() != (0,):
        connection.execute("update day_changes set at = '2025-01-01'")


def table(connection: psycopg.Connection[tuple[Any, ...]], query: str) -> list[tuple[Any, ...]]:
    """Rows in order; mean and m2 rounded, since they are combined in another grouping."""
    found = connection.execute(f"select {COLUMNS} from ({query}) as t order by 1, 2, 3".encode())
    return [tuple(rounded(row, i) if i in (4, 5) else v for i, v in enumerate(row)) for row in found]


def rounded(row: tuple[Any, ...], at: int) -> float:
    """To nine digits; where values (the mean), or their squares (m2), cancel each other, to those of the largest."""
    largest = max(abs(row[6]), abs(row[7]))
    largest = largest * largest if at == 5 else largest
    return 0.0 if abs(row[at]) <= 1e-12 * largest else float(f"{row[at]:.9g}")


def assert_whole(connection: psycopg.Connection[tuple[Any, ...]], hours: str, days: str) -> None:
    assert table(connection, f"select * from {hours}") == table(connection, WHOLE.format(start=HOUR))
    assert table(connection, f"select * from {days}") == table(connection, WHOLE.format(start=DAY))


@shared_database
@given(scripts)
def test_what_is_maintained_is_what_is_computed_from_scratch(conninfo: str, script) -> None:
    """Tables after a refresh, views at any moment, whatever happened before: minutes, late readings, other zones."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cleared(connection)
        for step in script:
            if step is None:
                refreshed(connection)
            elif isinstance(step, tuple):
                move(connection, *step)
            else:
                insert(connection, step)
            assert_whole(connection, "hours_now", "days_now")
        refreshed(connection)
        assert_whole(connection, "rollups_1h", "rollups_1d")
        assert connection.execute("select count(*) from hour_changes").fetchone() == (0,)
        assert connection.execute("select count(*) from day_changes").fetchone() == (0,)
        found = "select device_id, metric, min(first_ts), max(last_ts) from rollups_1m group by 1, 2 order by 1"
        seen = connection.execute("select device_id, metric, first_seen, last_seen from series order by 1").fetchall()
        for one, whole in zip(seen, connection.execute(found).fetchall(), strict=True):
            assert one[:3] == whole[:3]
            assert whole[3] - timedelta(minutes=10) <= one[3] <= whole[3]


def test_a_day_has_as_many_hours_as_its_clocks_say(conninfo: str) -> None:
    """In Berlin 25 in October and 23 in March; at Lord Howe half an hour more and less; in Kathmandu from 18:15 UTC."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for zone, day in [
            ("Europe/Berlin", date(2025, 10, 26)),
            ("Australia/Lord_Howe", date(2026, 4, 5)),
            ("Asia/Kathmandu", date(2026, 1, 1)),
            ("Europe/Berlin", date(2026, 3, 29)),
        ]:
            cleared(connection)
            move(connection, "boiler-7", zone)
            begins = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
            after = day + timedelta(days=1)
            ends = datetime(after.year, after.month, after.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
            every = [
                Minute("boiler-7", int((begins - START).total_seconds() // 60) + i * 15, 1.0, 0) for i in range(-8, 112)
            ]
            insert(connection, every)
            refreshed(connection)
            found = connection.execute("select count from rollups_1d where bucket = %s", [begins]).fetchone()
            assert found == ((ends - begins) // timedelta(minutes=15),)
            shown = connection.execute("select count from days where day = %s", [day]).fetchone()
            assert shown == found


def test_a_late_revision_recomputes_its_own_hour_and_day_alone(conninfo: str) -> None:
    """Every other row of rollups_1h and rollups_1d keeps its place in the table: nobody wrote it."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cleared(connection)
        insert(connection, [Minute(device, 60 * hour, 1.0, 0) for device in DEVICES for hour in range(30)])
        refreshed(connection)
        places = "select device_id, bucket, ctid::text, xmin::text from {} order by 1, 2"
        before = [set(connection.execute(places.format(t).encode()).fetchall()) for t in ("rollups_1h", "rollups_1d")]
        late = START + timedelta(hours=3)
        connection.execute(
            "update rollups_1m set count = 2, revision = 1 where device_id = 'kettle' and bucket = %s", [late]
        )
        connection.execute(
            "insert into hour_changes (hour, device_id, metric, first_bucket, last_bucket) "
            "values (%(at)s, 'kettle', 'temperature', %(at)s, %(at)s)",
            {"at": late},
        )
        refreshed(connection)
        after = [set(connection.execute(places.format(t).encode()).fetchall()) for t in ("rollups_1h", "rollups_1d")]
        midnight = late.replace(hour=0)
        assert [{row[:2] for row in new - old} for new, old in zip(after, before, strict=True)] == [
            {("kettle", late)},
            {("kettle", midnight)},
        ]


def test_a_note_that_comes_while_an_hour_is_computed_is_not_lost(conninfo: str) -> None:
    """The writer neither waits for the refresh nor is overlooked by it; a second refresh at once does nothing."""
    with psycopg.connect(conninfo, autocommit=True) as connection, psycopg.connect(conninfo) as refresher:
        cleared(connection)
        insert(connection, [Minute("boiler-7", 0, 1.0, 0)])
        refresher.execute("select refresh_rollups()")  # and does not commit yet
        insert(connection, [Minute("boiler-7", 1, 1.0, 0)])  # ends, though the other holds the hour's row
        assert connection.execute("select refresh_rollups()").fetchone() == (0,)
        refresher.commit()
        assert connection.execute("select count from rollups_1h").fetchone() == (1,)
        assert connection.execute("select count from hours_now").fetchone() == (2,)
        refreshed(connection)
        assert connection.execute("select count from rollups_1h").fetchone() == (2,)


def test_a_refresh_with_an_old_snapshot_is_refused(conninfo: str) -> None:
    """It would write what it saw before the one that has just ended."""
    with psycopg.connect(conninfo) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"):
            connection.execute("select refresh_rollups()")


@shared_database
@given(drawn.steps())
def test_the_writer_of_minutes_notes_all_that_it_touches(conninfo: str, made) -> None:
    """Whatever a rollup writer seals, the hours as they stand now are what its minutes say."""
    emptied(conninfo)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cleared(connection)
        of = store(conninfo)
        claim = claimed(of)
        before = claim.progress
        for item in drawn.outcomes(made):
            seal(of, claim, before, [item])
            before = item.progress
            assert table(connection, "select * from hours_now") == table(connection, WHOLE.format(start=HOUR))
            connection.execute("select refresh_rollups()")
        of.close()
        connection.execute("update hour_changes set at = '2025-01-01'")
        refreshed(connection)
        assert table(connection, "select * from rollups_1h") == table(connection, WHOLE.format(start=HOUR))
