"""Partitions of plain PostgreSQL that a writer finds missing (``infra/timescale/0003_time_partitions.sql``).

Rule: they are made in a transaction of their own, by a function that needs no more than the right to call it, and the
writer's transaction is then tried again: nobody holds a table's lock for longer than it takes to add a partition.
"""

import re
from typing import Final

from psycopg import errors

from connectors import timescale_connection
from connectors.timescale_connection import Connection

MISSING_MAX: Final = 5_000  # partitions that one transaction may find missing: days of the longest event age, and more
_INSTANT: Final = re.compile(r"\) = \(([^()]+)\)")  # of the error's detail, whatever its language
_MAKE: Final = """
    select make_partitions(name, array[%(at)s::timestamptz, %(at)s::timestamptz + width])
    from time_tables where name = %(table)s
"""


def make_missing(connection: Connection, error: errors.CheckViolation) -> bool:
    """Make the partition whose lack is the error, and the next one; False where the error is another."""
    instant = _INSTANT.search(error.diag.message_detail or "")
    if error.diag.constraint_name or not error.diag.table_name or instant is None:
        return False
    connection.rollback()
    timescale_connection.begin(connection)
    made = connection.execute(_MAKE, {"at": instant.group(1), "table": error.diag.table_name}).fetchone()
    connection.commit()
    return made is not None
