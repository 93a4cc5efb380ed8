"""Which hours of minutes a transaction touched: what ``rollups_1h`` and ``rollups_1d`` are recomputed by.

Rule: notes are only ever added, one an hour and transaction for new windows, one a series and hour for late revisions,
so that writers wait for nobody (``infra/timescale/0004_hours_and_days.sql``).
"""

from typing import Final

import polars as pl

from connectors.timescale_connection import Connection

MINUTES: Final = "rollups_1m"
"""The table that hours and days are made of; windows of another length have none."""

_HOUR_MS: Final = 3_600_000
_NOTE: Final = """
    insert into hour_changes (hour, device_id, metric, first_bucket, last_bucket)
    select date_bin('1 hour', first, 'epoch'), device_id, metric, first, last
    from unnest(%b::text[], %b::text[], %b::bigint[], %b::bigint[]) as c (device_id, metric, first_ms, last_ms),
        lateral (select timestamptz 'epoch' + first_ms * interval '1 millisecond' as first,
            timestamptz 'epoch' + last_ms * interval '1 millisecond' as last) as instants
"""


def note_hours(transaction: Connection, rollups: pl.DataFrame, late: pl.DataFrame) -> None:
    """Note the hours of new windows (``bucket``) and of late readings (``device_id``, ``metric``, ``bucket``)."""
    hour, of_any = (pl.col("bucket") // _HOUR_MS).alias("hour"), pl.lit(None, pl.String())
    span = (pl.col("bucket").min().alias("first"), pl.col("bucket").max().alias("last"))
    new = rollups.group_by(hour).agg(*span).select(of_any.alias("device_id"), of_any.alias("metric"), "first", "last")
    revised = late.group_by("device_id", "metric", hour).agg(*span).select("device_id", "metric", "first", "last")
    notes = pl.concat([new, revised])
    if len(notes):
        transaction.execute(_NOTE, [column.to_list() for column in notes])
