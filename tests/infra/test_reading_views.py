"""What the views say of series: the last value, how complete they are, where minutes are missing and why."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from infra.migrations import migrate
from tests.databases import fresh_database

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

Connection = psycopg.Connection[tuple[Any, ...]]
START = datetime(2025, 11, 20, tzinfo=UTC)
HOURS = 4


@pytest.fixture(scope="module")
def connection(admin_url: str) -> Iterator[Connection]:
    """Four hours of five series: see ``filled``."""
    with fresh_database(admin_url) as conninfo:
        migrate(conninfo)
        with psycopg.connect(conninfo, autocommit=True) as found:
            filled(found)
            yield found


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def minutes(connection: Connection, device: str, metric: str, some: range | list[int], revision: int = 0) -> None:
    connection.execute(
        "insert into rollups_1m select b, %s, %s, 1, extract(epoch from b - %s) / 60, 0, 0, 999, 0, "
        "extract(epoch from b - %s) / 60, b, b + interval '5 s', %s from unnest(%s::timestamptz[]) as b",
        [device, metric, START, START, revision, [at(minute) for minute in some]],
    )


def filled(connection: Connection) -> None:
    """A device each minute, one each five, one with a metric that pauses, one that fell silent; an outage of all."""
    everything = set(range(HOURS * 60)) - set(range(100, 110))  # the pipeline was down for ten minutes
    connection.execute("select make_partitions('rollups_1m', array[%s])", [START])
    minutes(connection, "steady", "temperature", sorted(everything))
    minutes(connection, "slow", "temperature", sorted(m for m in everything if m % 5 == 0))
    minutes(connection, "pausing", "temperature", sorted(everything))
    minutes(connection, "pausing", "humidity", sorted(everything - set(range(30, 40))))
    minutes(connection, "silent", "temperature", sorted(m for m in everything if m < 180 and not 150 <= m < 160))
    minutes(connection, "silent", "temperature", range(150, 160), revision=1)  # by late readings alone
    connection.execute(
        "insert into devices values ('slow', 'berlin', 'Europe/Berlin', 52.5, 13.4, '{\"hall\": \"3\"}')"
    )
    connection.execute("insert into metrics values ('temperature', '', 'degC', 'air_temperature')")
    connection.execute("insert into metrics values ('temperature', 'slow', 'K', 'sea_water_temperature')")
    connection.execute(
        "insert into progress (flow, topic, partition, generation, position, resume, start, closed_until, topic_id, "
        "partitions, output, shape, claimed_by) values ('f', 't', 0, 1, 9, 9, 0, %s, 'i', 1, 'rollups_1m', 's', 'me')",
        [at(HOURS * 60)],
    )
    connection.execute(
        "insert into hour_changes (hour, first_bucket, last_bucket) "
        "select date_bin('1 hour', bucket, 'epoch'), min(bucket), max(bucket) from rollups_1m group by 1"
    )
    while connection.execute("select refresh_rollups()").fetchone() != (0,):
        pass
    connection.execute("analyze")


def test_latest_is_the_last_value_of_each_series(connection: Connection) -> None:
    """With its unit: a device's own wins over the metric's."""
    found = connection.execute("select device_id, metric, value, unit, at from latest order by 1, 2").fetchall()
    last = timedelta(seconds=5)
    assert found == [
        ("pausing", "humidity", 239.0, None, at(239) + last),
        ("pausing", "temperature", 239.0, "degC", at(239) + last),
        ("silent", "temperature", 179.0, "degC", at(179) + last),
        ("slow", "temperature", 235.0, "K", at(235) + last),
        ("steady", "temperature", 239.0, "degC", at(239) + last),
    ]


def test_latest_looks_into_an_index_once_a_series(connection: Connection) -> None:
    """One row read of the minutes a series, however many there are."""
    (plan,) = connection.execute("explain (analyze, format json) select * from latest").fetchone() or ()
    scans = [n for n in nodes(plan[0]["Plan"]) if str(n.get("Relation Name", "")).startswith("rollups_1m")]
    assert scans
    assert {n["Node Type"] for n in scans} <= {"Index Scan", "Index Only Scan"}
    assert sum(n["Actual Rows"] * n["Actual Loops"] for n in scans) == 5


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def test_completeness_is_by_the_cadence_of_each_series(connection: Connection) -> None:
    """A reading in five minutes is complete with twelve an hour; what came late alone is said."""
    found = connection.execute(
        "select device_id, metric, cadence, expected, present, only_late, round(completeness::numeric, 3)::float8 "
        "from completeness_between(%s, %s) order by 1, 2",
        [START, at(HOURS * 60)],
    ).fetchall()
    one, five = timedelta(minutes=1), timedelta(minutes=5)
    assert found == [
        ("pausing", "humidity", one, 240, 220, 0, 0.917),
        ("pausing", "temperature", one, 240, 230, 0, 0.958),
        ("silent", "temperature", one, 240, 170, 10, 0.708),
        ("slow", "temperature", five, 48, 46, 0, 0.958),
        ("steady", "temperature", one, 240, 230, 0, 0.958),
    ]


def test_each_gap_has_its_cause_as_far_as_it_is_known(connection: Connection) -> None:
    """Nobody's minutes: the pipeline. Only this device's: the device. Only this metric's: the metric."""
    found = connection.execute(
        "select device_id, metric, starts, ends, missing, cause from gaps_between(%s, %s) order by 1, 2, 3",
        [START, at(HOURS * 60)],
    ).fetchall()
    assert found == [
        ("pausing", "humidity", at(30), at(40), 10, "metric"),
        ("pausing", "humidity", at(100), at(110), 10, "no device"),
        ("pausing", "temperature", at(100), at(110), 10, "no device"),
        ("silent", "temperature", at(100), at(110), 10, "no device"),
        ("silent", "temperature", at(180), at(240), 60, "device"),
        ("slow", "temperature", at(100), at(110), 2, "no device"),
        ("steady", "temperature", at(100), at(110), 10, "no device"),
    ]


def test_what_was_rejected_is_a_cause_before_all_others(connection: Connection) -> None:
    """Of the device, within the gap or in the minute after it: there it is known that the device spoke."""
    query = "select device_id, metric, starts, cause from gaps_between(%s, %s) where starts <> %s order by 1, 2, 3"
    asked = [START, at(HOURS * 60), at(180)]
    before = connection.execute(query, asked).fetchall()
    with connection.transaction(force_rollback=True):
        connection.execute("select make_partitions('rejections', array[%s])", [START])
        connection.execute(
            "insert into rejections select minute, device_id, 'not_json', 1 from unnest(%s::timestamptz[], %s::text[]) "
            "as given (minute, device_id)",
            [[at(40), at(99), at(109), at(111)], ["pausing", "silent", "slow", "steady"]],
        )
        assert connection.execute(query, asked).fetchall() == [
            (*gap[:3], "rejected") if gap[0] == "slow" or gap[2] == at(30) else gap for gap in before
        ]


def test_a_gap_may_begin_before_what_is_asked(connection: Connection) -> None:
    """It is told from there on; a series that reports each five minutes may begin anywhere within five."""
    query = "select device_id, starts, ends, missing from gaps_between(%s, %s) where metric = 'temperature' order by 1"
    assert connection.execute(query, [at(105), at(140)]).fetchall() == [
        (device, at(105), at(110), 1 if device == "slow" else 5) for device in ("pausing", "silent", "slow", "steady")
    ]
    assert connection.execute(query, [at(111) + timedelta(seconds=30), at(140)]).fetchall() == []


def test_late_readings_that_wait_for_the_archive_are_a_cause(connection: Connection) -> None:
    """They will be there when the archive has passed them."""
    with connection.transaction(force_rollback=True):
        connection.execute(
            "insert into late_waiting values ('f', 't', 0, 7, 'humidity', 'pausing', %s, 1, now())", [at(33)]
        )
        cause = "select cause from gaps_between(%s, %s) where metric = 'humidity' and starts = %s"
        assert connection.execute(cause, [START, at(HOURS * 60), at(30)]).fetchone() == ("waiting",)


def test_what_is_not_closed_or_has_expired_is_no_gap(connection: Connection) -> None:
    """Before and after what can be known nothing is expected."""
    with connection.transaction(force_rollback=True):
        connection.execute("update time_tables set expired_until = %s where name = 'rollups_1m'", [at(60)])
        connection.execute("update progress set closed_until = %s", [at(120)])
        found = "select expected, present from completeness_between(%s, %s) where device_id = 'steady'"
        assert connection.execute(found, [START, at(HOURS * 60)]).fetchone() == (60, 50)


def test_local_time_and_site_are_the_devices(connection: Connection) -> None:
    """What is joined when one reads: the site's clock, its units; a device without a line has UTC."""
    query = "select local_time, site, unit, stddev, range from minutes where device_id = %s and bucket = %s"
    local = datetime(2025, 11, 20, 1)
    assert connection.execute(query, ["slow", START]).fetchone() == (local, "berlin", "K", None, 999.0)
    assert connection.execute(query, ["steady", START]).fetchone() == (local.replace(hour=0), None, "degC", None, 999.0)
    day = "select day, count from days where device_id = 'slow' and metric = 'temperature'"
    assert connection.execute(day).fetchall() == [(START.date(), 46)]


def test_spreads_and_ranges_of_extreme_values_are_no_errors(connection: Connection) -> None:
    """PostgreSQL raises an error where doubles overflow or vanish: one such series would hide all others."""
    query = "select stddev_of(2, %s), range_of(%s, %s)"
    assert connection.execute(query, [5e-324, -1.7e308, 1.7e308]).fetchone() == (0.0, float("inf"))
    assert connection.execute(query, [float("inf"), 1.0, 3.0]).fetchone() == (float("inf"), 2.0)
    assert connection.execute("select stddev_of(1, 0), stddev_of(3, 8)").fetchone() == (None, 2.0)


def test_a_rolling_frame_is_time_and_not_rows(connection: Connection) -> None:
    """After the outage the last 15 minutes hold five; since when is said, the frame before it is whole."""
    query = "select bucket, count from rolling(15, %s) where device_id = 'steady' and bucket in (%s, %s) order by 1"
    assert connection.execute(query, [at(90), at(90), at(114)]).fetchall() == [(at(90), 15), (at(114), 5)]
