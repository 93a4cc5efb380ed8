"""Rows and the partitions they belong to: one that is missing is made by whoever meets its lack.

On plain PostgreSQL tables divided by time have no default partition (infra/timescale/0003_time_partitions.sql says
why). The lack shows as an error of the insert, so a writer asks nothing beforehand and pays nothing where all is there.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import polars as pl
from psycopg import errors

from connectors.timescale_connection import Connection

HOUR_MS: Final = 3_600_000  # partitions are whole hours wide, or wider, and aligned to the epoch

_MAKE: Final = """
    select make_partitions(%s, array(
        select timestamptz 'epoch' + hour * interval '1 hour' from unnest(%s::bigint[]) as hour))
"""
T = TypeVar("T")


def placing(transaction: Connection, table: str, instants: pl.Series, insert: Callable[[], T]) -> T:
    """Call ``insert``, which writes rows of these ``instants`` (ms) into ``table``; again where a partition was missing.

    It runs in a savepoint of ``transaction``. Other errors pass, with what ``insert`` did undone.
    """
    try:
        with transaction.transaction():
            return insert()
    except errors.CheckViolation as error:
        if error.diag.constraint_name is not None:
            raise
    hours = (instants // HOUR_MS).unique().sort().to_list()
    transaction.execute(_MAKE, [table, hours])
    with transaction.transaction():
        return insert()
