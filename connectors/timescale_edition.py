"""What kind of database this is, and what it lacks, in one line for people."""

from typing import Final

from connectors.timescale_connection import Connection

_ASK: Final = """
    select store_edition(), current_setting('server_version'),
        (select extversion from pg_extension where extname = 'timescaledb')
"""
_MAINTAIN: Final = "run ./justw maintain --every 60s beside the dataflows"


def edition(connection: Connection) -> str:
    """One line: name and version, and what is missing there, with what to do about it."""
    found = connection.execute(_ASK).fetchone()
    assert found is not None
    kind, server, extension = found
    server = server.split(" ")[0]
    if kind == "postgres":
        return (
            f"PostgreSQL {server} without TimescaleDB: partitions of our own instead of hypertables, no columnstore "
            f"(rows take several times the space), no jobs: {_MAINTAIN}"
        )
    if kind == "apache":
        return (
            f"TimescaleDB {extension}, Apache edition, on PostgreSQL {server}: hypertables, but no columnstore (rows "
            f"take several times the space) and no jobs: {_MAINTAIN}"
        )
    return f"TimescaleDB {extension} on PostgreSQL {server}: hypertables, columnstore and jobs"
