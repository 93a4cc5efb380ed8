"""The ten questions of infra/timescale/queries.sql: each has its answer, and reads of a large table what it must.

A week of 300,000 rows; with --hypothesis-profile=thorough of five million, which takes about three minutes.
"""

import math
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import psycopg
import pytest
from hypothesis import settings

from infra.migrations import migrate
from infra.queries import Query, read_queries
from tests.databases import fresh_database

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

Connection = psycopg.Connection[tuple[Any, ...]]
QUERIES: Final = read_queries()
DAYS: Final = 7
METRICS: Final = 4
ROWS: Final = 300_000
ROWS_THOROUGH: Final = 5_000_000


class Fleet(NamedTuple):
    connection: Connection
    devices: int
    filled_at: float  # seconds of the clock, with which the questions' now() goes on

    @property
    def mins_since(self) -> int:
        """Minutes that have begun since it was filled."""
        return math.ceil((time.time() - self.filled_at) / 60)

    def arguments(self, query: Query) -> dict[str, str]:
        given = {"device": "device-1", "metric": "metric-1", "site": "site-1"}
        return {name: given[name] for name in query.parameters}


@pytest.fixture(scope="module")
def fleet(admin_url: str) -> Iterator[Fleet]:
    """A week of minutes up to now, of four metrics; a device that fell silent, one with a gap, and late readings."""
    rows = ROWS if settings.default.max_examples <= 100 else ROWS_THOROUGH
    devices = rows // (DAYS * 1440 * METRICS)
    with fresh_database(admin_url) as conninfo:
        migrate(conninfo)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            filled_at = time.time()
            filled(connection, devices)
            yield Fleet(connection, devices, filled_at)


def filled(connection: Connection, devices: int) -> None:
    connection.execute(
        "insert into devices select 'device-' || i, 'site-' || mod(i, 10), 'Europe/Berlin' "
        "from generate_series(1, %s) as i",
        [devices],
    )
    connection.execute("insert into metrics values ('metric-1', '', 'degC', 'air_temperature')")
    week = "array(select now() - i * interval '1 day' from generate_series(0, 8) as i)"
    for table in ("rollups_1m", "late_readings"):
        connection.execute(f"select make_partitions('{table}', {week})".encode())
    connection.execute(
        "insert into rollups_1m select b, 'device-' || d, 'metric-' || m, 6, 20 + d, 1, 19, 22 + d, 20, 21, b, b, 0 "
        "from generate_series(date_bin('1 minute', now() - interval '7 days', 'epoch'), now() - interval '2 minutes', "
        "interval '1 minute') as b, generate_series(1, %s) as d, generate_series(1, %s) as m "
        "where not (d = 2 and b > now() - interval '3 hours') "
        # Forty minutes within an hour: sixty are a whole one where it is a full hour now, and a week has an hour less.
        "and not (d = 1 and b - date_bin('1 hour', now() - interval '5 hours', 'epoch') >= interval '10 minutes' "
        "and b - date_bin('1 hour', now() - interval '5 hours', 'epoch') < interval '50 minutes')",
        [devices, METRICS],
    )
    connection.execute(
        "insert into late_readings select 'device-3', 'metric-1', now() - i * interval '1 minute', i, 'f', 0, i, now() "
        "from generate_series(1, 50) as i"
    )
    connection.execute(
        "insert into hour_changes (hour, first_bucket, last_bucket, at) select h, h, h + interval '59 minutes', "
        "'2025-01-01' from generate_series(date_bin('1 hour', now() - interval '7 days', 'epoch'), now(), "
        "interval '1 hour') as h"
    )
    while connection.execute("select refresh_rollups()").fetchone() != (0,):
        connection.execute("update day_changes set at = '2025-01-01'")
    connection.execute("vacuum analyze")


def test_there_are_ten_each_with_a_question() -> None:
    """Names are unique, questions are questions."""
    assert len(QUERIES) == len({query.name for query in QUERIES}) == 10
    assert all("?" in query.question for query in QUERIES)


def answers(devices: int, mins: int) -> dict[str, range]:
    """How many rows each question has, by what was filled in ``mins`` minutes ago: an hour or a day may end between."""
    return {
        "now": range(METRICS, METRICS + 1),
        "last_hour": range(57 - mins, 61),
        "week_by_hour": range(167, 170),
        "site_by_day": range(7, 10),
        "highest": range(min(10, devices), 11),
        "fleet_by_hour": range(23, 26),
        "rolling_quarter": range(315 - mins, 321),
        "silent": range(METRICS, METRICS + 1),
        "gaps": range(METRICS, 2 * METRICS + 1),  # the forty minutes without data, and the one since it was filled
        "late": range(1, 2),
    }


def readable(devices: int) -> dict[str, float]:
    """Rows of minutes, hours and days that each may read, by the time it asks for: never the table."""
    every_hour = 40 * METRICS * devices + 120 * METRICS * devices  # hours, and minutes of the two that are not done
    return {
        "now": 3 * METRICS,
        "last_hour": 61,
        "week_by_hour": 169 + 120,
        "site_by_day": 60 * 60 * METRICS * (devices / 10 + 1),
        "highest": every_hour,
        "fleet_by_hour": every_hour,
        "rolling_quarter": 380,
        "silent": 0,
        "gaps": METRICS * (120 + 1440) + 1440 * 8,
        "late": 0,
    }


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_question_has_its_answer(fleet: Fleet, query: Query) -> None:
    """As many rows as what was filled in says."""
    found = len(fleet.connection.execute(query.sql.encode(), fleet.arguments(query)).fetchall())
    assert found in answers(fleet.devices, fleet.mins_since)[query.name]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_question_reads_what_it_must_and_not_the_table(fleet: Fleet, query: Query) -> None:
    """By the plan as it ran: rows taken from rollups, those thrown away too, and no partition of minutes as a whole."""
    explain = f"explain (analyze, format json) {query.sql}".encode()
    (plan,) = fleet.connection.execute(explain, fleet.arguments(query)).fetchone() or ()
    scans = [
        n for n in nodes(plan[0]["Plan"]) if str(n.get("Relation Name", "")).startswith("rollups") and n["Actual Loops"]
    ]
    read = sum(n["Actual Loops"] * (n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) for n in scans)
    assert read <= readable(fleet.devices)[query.name], [
        (n["Node Type"], n["Relation Name"], n["Actual Rows"]) for n in scans
    ]
    whole = [n for n in scans if n["Node Type"] == "Seq Scan" and n["Relation Name"].startswith("rollups_1m")]
    assert not [n for n in whole if n["Actual Rows"] + n.get("Rows Removed by Filter", 0) > 1_000]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)
