"""The raw archive on a real TimescaleDB: late copies are found in compressed chunks, and roles hold on hypertables."""

from collections.abc import Iterator

import psycopg
import pytest

from infra.migrations import migrate
from tests.connectors.test_timescale_late import Flows, one_copy
from tests.connectors.timescale_tables import rows
from tests.timescaledb.server import timescaledb

pytestmark = [pytest.mark.embedded]


@pytest.fixture(scope="module")
def conninfo() -> Iterator[str]:
    with timescaledb() as found:
        migrate(found)
        yield found


@pytest.fixture
def connection(conninfo: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as found:
        yield found


def test_a_late_copy_is_found_in_a_compressed_chunk(
    conninfo: str, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    """And the archive writes into the chunk what comes late, after it was compressed."""
    flows = Flows(conninfo, one_copy())
    flows.land()
    flows.roll()
    connection.execute("update time_tables set columnstore_after = '7 days' where name = 'raw_telemetry'")
    connection.execute("select keep_columnstore('raw_telemetry')")
    for (chunk,) in connection.execute("select format('%s', c) from show_chunks('raw_telemetry') as c").fetchall():
        connection.execute("call convert_to_columnstore(%s)", [chunk])
    flows.roll()
    flows.land()
    flows.tick()
    compressed = "select bool_and(is_compressed) from timescaledb_information.chunks where hypertable_name = %s"
    assert connection.execute(compressed, ["raw_telemetry"]).fetchone() == (True,)
    assert rows(conninfo, "select count(*) from raw_telemetry") == [(2,)]
    ledger = "select late, late_duplicates, open from ledger where flow = 'minute_rollups'"
    assert rows(conninfo, ledger) == [(0, 1, 0)]
    assert rows(conninfo, "select count, revision from rollups_1m") == [(1, 0)]


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("reader", "insert into raw_telemetry values (now(), 'd', 'm', 1, 0, 1)"),
        ("writer", "delete from rollups_1m"),
        ("writer", "truncate raw_telemetry"),
        ("writer", "select drop_chunks('raw_telemetry', older_than => now())"),
    ],
)
def test_a_role_may_not(connection: psycopg.Connection[tuple[object, ...]], role: str, statement: str) -> None:
    """As on plain PostgreSQL; chunks are dropped by the owner alone."""
    connection.execute(f"set role ionwax_{role}".encode())
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    finally:
        connection.execute("reset role")


def test_a_writer_writes_and_a_reader_reads(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Hypertables, and chunks that did not exist when the roles were granted."""
    with connection.transaction():
        connection.execute("set local role ionwax_writer")
        connection.execute("insert into raw_telemetry values (timestamptz '2031-05-01', 'd', 'm', 1, 0, 99)")
    with connection.transaction():
        connection.execute("set local role ionwax_reader")
        found = connection.execute("select value from raw_telemetry where event_time > timestamptz '2031-04-30'")
        assert found.fetchall() == [(1.0,)]
