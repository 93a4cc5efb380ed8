"""All dataflows on TimescaleDB, from a fleet to hours and days, beside the same log on plain PostgreSQL.

One log, two databases: what the dataflows make of it may not depend on the edition. Half of the readings come after
their chunks were moved into the columnstore, and two dataflows are killed on the way.
"""

import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
import pytest

from infra.demo.doorstep import subscribe_ahead
from infra.demo.topology import RULES
from infra.fleet.plan import Plan
from infra.fleet.run import now_ms
from infra.maintain import maintain
from infra.migrations import migrate
from infra.verify.__main__ import check
from schemas.settings import RetentionSettings, Settings, WindowSettings
from schemas.settings_file import load
from tests.conftest import GIVEN
from tests.databases import fresh_database
from tests.fleet_oracle import Expected
from tests.test_end_to_end import assert_rows, send, settled
from tests.timescaledb.server import timescaledb
from tests.topology import Topology, beside, topology

pytestmark = [pytest.mark.embedded, pytest.mark.contract, pytest.mark.long]

DAY_MS = 86_400_000
AGO_MS = 50 * 3_600_000  # its day is over, and more than a day ago
DEADLINE_SECS = 300.0  # anomaly_flags looks at each of the 3,000 minutes between, in both
FLOWS = ("minute_rollups", "raw_archive", "anomaly_flags")
SAME = {
    "rollups_1m": "select * from rollups_1m order by device_id, metric, bucket",
    "late_readings": 'select device_id, metric, event_time, value, "partition", "offset" from late_readings '
    "order by device_id, metric, event_time, value",
    "raw_telemetry": 'select * from raw_telemetry order by "partition", "offset", metric',
    "anomaly_flags": "select * from anomaly_flags order by device_id, metric, detector, bucket, episode_id",
    "anomaly_episodes": "select * from anomaly_episodes order by episode_id",
    "rollups_1h": "select * from rollups_1h order by device_id, metric, bucket",
    "rollups_1d": "select * from rollups_1d order by device_id, metric, bucket",
}


@pytest.fixture(scope="module")
def hyper(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with the extension: of DATABASE_URL's server with --real where that has it, else the tests' own."""
    given = GIVEN["DATABASE_URL"] if request.config.getoption("--real") else ""
    if given and _has_extension(given):
        with fresh_database(given, "template0") as conninfo:  # its launcher looks into template1
            yield conninfo
    else:
        with timescaledb() as conninfo:
            yield conninfo


def _has_extension(conninfo: str) -> bool:
    with psycopg.connect(conninfo) as connection:
        found = connection.execute("select from pg_available_extensions where name = 'timescaledb'")
        return found.fetchone() is not None


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest, admin_url: str) -> Iterator[str]:
    """A database without it: of the embedded server where the one that was given has the extension."""
    server = request.getfixturevalue("postgres").conninfo if _has_extension(admin_url) else admin_url
    with fresh_database(server) as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, hyper: str, plain: str, mqtt_url: str
) -> Iterator[tuple[Topology, Topology, Expected]]:
    """Both editions, when all that the fleets said is in its rows."""
    folder = tmp_path_factory.mktemp("timescaledb")
    shutil.copy(RULES, folder / "rules.yaml")
    flags = {"rules_file": "rules.yaml", "alerts": False, "snapshot_every_secs": 5}
    with topology(folder, kafka_bootstrap, hyper, mqtt_url, flags=flags) as flows:
        subscribe_ahead(flows.settings.mqtt)
        expected = Expected()
        long_ago = now_ms() - AGO_MS
        send(flows, expected, Plan(start_ms=long_ago, seed=1), folder / "first.jsonl")
        for flow in ("ingest", *FLOWS):
            flows.start(flow)
        wait_for(lambda: done(flows, expected), "the first fleet is in its rows", flows)
        wait_for(lambda: flows.ask("select 1 from anomaly_flags limit 1"), "a spike is flagged", flows)

        tidy(flows.settings)
        assert {"rollups_1m", "raw_telemetry", "anomaly_flags"} <= compressed(hyper)
        for flow in ("minute_rollups", "raw_archive"):
            assert flows.stop(flow, signal.SIGKILL) == -signal.SIGKILL
        late = Plan(start_ms=long_ago + 7, seed=2, format="protobuf")
        send(flows, expected, late, folder / "late.jsonl")
        for flow in ("minute_rollups", "raw_archive"):
            flows.start(flow, name=f"{flow} again")
        send(flows, expected, Plan(start_ms=now_ms() - 600_000, seed=3), folder / "new.jsonl")
        wait_for(lambda: done(flows, expected), "three fleets are in their rows", flows)
        tidy(flows.settings)
        with again(flows, plain) as other:
            wait_for(lambda: done(other, expected), "the other edition has them, too", other)
            wait_for(lambda: level(flows, other), "flags were told of all", other)
            for each in (flows, other):
                assert {each.stop(name) for name in list(each.running)} == {0}
                tidy(each.settings)
            yield flows, other, expected


def wait_for(condition: Callable[[], Any], what: str, flows: Topology) -> None:
    """As ``tests.topology`` does, longer."""
    deadline = time.monotonic() + DEADLINE_SECS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECS:.0f} s: {what}: {flows.state()}"
        time.sleep(0.5)


@contextmanager
def again(flows: Topology, conninfo: str) -> Iterator[Topology]:
    """The same log read again into another database; flags from the same rollups, since revisions are told in cuts."""
    migrate(conninfo)
    database = {"conninfo": conninfo}
    output = {"topic": f"{flows.prefix}.plain"}
    flags = {"topic": f"{flows.prefix}.plain-flags"}
    with (
        beside(flows, "plain.yaml", database=database, output=output) as other,
        beside(flows, "plain-flags.yaml", database=database, flags=flags) as flagging,
    ):
        other.running, flagging.running = {}, {}
        try:
            for flow, of in (("minute_rollups", other), ("raw_archive", other), ("anomaly_flags", flagging)):
                other.running[flow] = of.running[of.start(flow, name=f"plain {flow}")]
            yield other
        finally:
            for process in other.running.values():
                process.kill()
                process.wait()


def done(flows: Topology, expected: Expected) -> bool:
    """Whether all is counted and closed, and archived; late readings that wait for the archive count as open."""
    if not settled(flows, expected):
        return False
    positions = dict(flows.ask("select flow, sum(position)::int from progress group by 1"))
    return positions.get("raw_archive", 0) >= positions["minute_rollups"]


def level(*both: Topology) -> bool:
    """Whether the flags of both have read the same log to its end."""
    asked = "select topic, partition, position from progress where flow = 'anomaly_flags' order by 2"
    first, second = (one.ask(asked) for one in both)
    return first == second


def tidy(settings: Settings) -> None:
    """Hours and days now, though their notes are young; and on TimescaleDB every chunk into the columnstore."""
    with psycopg.connect(settings.database.conninfo, autocommit=True) as connection:
        for table in ("hour_changes", "day_changes"):
            connection.execute(f"update {table} set at = '2025-01-01'".encode())
    for _ in range(2):  # days are noted by the hours
        list(maintain(settings))
        with psycopg.connect(settings.database.conninfo, autocommit=True) as connection:
            connection.execute("update day_changes set at = '2025-01-01'")


def compressed(conninfo: str) -> set[str]:
    """Move every chunk into the columnstore where there is one; the tables that now have rows there."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "select compress_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass, if_not_compressed => true) "
            "from timescaledb_information.chunks join timescaledb_information.hypertables "
            "using (hypertable_schema, hypertable_name) where compression_enabled and not is_compressed"
        )
        found = connection.execute("select hypertable_name from timescaledb_information.chunks where is_compressed")
        return {str(name) for (name,) in found.fetchall()}


def test_every_row_equals_a_group_by(told: tuple[Topology, Topology, Expected]) -> None:
    """On TimescaleDB; late readings of the columnstore are in theirs."""
    flows, _, expected = told
    assert_rows(flows, expected.rows())
    assert flows.ask("select count(*) from rollups_1m where revision > 0")[0][0] > 100


@pytest.mark.parametrize("table", SAME)
def test_the_edition_is_invisible(told: tuple[Topology, Topology, Expected], table: str) -> None:
    """The same rows on both, to the bit; hours and days, which are combined in no order, to rounding."""
    flows, other, _ = told
    found, there = flows.ask(SAME[table]), other.ask(SAME[table])
    assert len(found) > 0
    if table in ("rollups_1h", "rollups_1d"):
        assert len(found) == len(there)
        assert [] == [pair for pair in zip(found, there, strict=True) if not all(map(alike, *pair))]
    else:
        assert found == there


def alike(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return one == other


@pytest.mark.parametrize(("table", "length_ms"), [("rollups_1h", 3_600_000), ("rollups_1d", DAY_MS)])
def test_hours_and_days_hold_what_is_over(
    told: tuple[Topology, Topology, Expected], table: str, length_ms: int
) -> None:
    """Those of two days ago: count, extremes and mean of what was sent, late or not."""
    flows, _, expected = told
    rows: dict[tuple[Any, ...], Any] = {
        (*series, start): row for (series, start), row in expected.rows(length_ms).items() if start < now_ms() - DAY_MS
    }
    found = {
        (device, metric, bucket): rest
        for device, metric, bucket, *rest in flows.ask(
            f"select device_id, metric, (extract(epoch from bucket) * 1000)::bigint, count, min, max, mean from {table}"
        )
        if bucket < now_ms() - DAY_MS
    }
    assert rows.keys() == found.keys()
    for key, row in rows.items():
        count, low, high, mean = found[key]
        assert (row.count, row.min, row.max) == (count, low, high), key
        assert math.isclose(row.mean, mean, rel_tol=1e-12, abs_tol=1e-12), key


def test_verify_finds_nothing_wrong(told: tuple[Topology, Topology, Expected]) -> None:
    """By the ledgers, by the log read again, and by what the fleets recorded; then also after retention."""
    flows, _, _ = told
    for name in ("first", "late", "new"):
        assert [] == list(check(flows.settings, deep=True, sent_path=flows.folder / f"{name}.jsonl"))


def test_retention_drops_what_is_compressed_and_verify_agrees(told: tuple[Topology, Topology, Expected]) -> None:
    """Minutes and readings of two days ago go; the deep check looks at what is left."""
    flows, _, _ = told
    before = flows.ask("select count(*) from rollups_1m")[0][0]
    short = expiring(flows)
    said = list(maintain(short))
    assert any(line.startswith("rollups_1m: dropped") for line in said), said
    assert any(line.startswith("raw_telemetry: dropped") for line in said), said
    assert 0 < flows.ask("select count(*) from rollups_1m")[0][0] < before
    assert [] == list(check(short, deep=True))


def expiring(flows: Topology) -> Settings:
    """The same settings but for what is kept: a day of minutes and readings."""
    return msgspec.structs.replace(
        load(flows.settings_path, {}),
        windows=WindowSettings(event_age_max_secs=43_200),
        retention=RetentionSettings(minutes_days=1, readings_days=1, columnstore_after_days=1),
    )
