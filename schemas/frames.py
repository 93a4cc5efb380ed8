"""The Polars frames that modules hand to one another, as schemas.

All times are Int64 milliseconds since the Unix epoch, UTC, unless a column says otherwise. A frame that
crosses a boundary has exactly these columns, in this order.
"""

from typing import Final

import polars as pl

MESSAGES: Final = pl.Schema(
    {
        "offset": pl.Int64(),  # ascending, unique
        "append_time": pl.Int64(),  # the record's own timestamp in the log
        "event_time": pl.Int64(),  # when the device says it happened
        "device_id": pl.String(),
        "metric": pl.List(pl.String()),  # as long as value; at least one; no metric twice
        "value": pl.List(pl.Float64()),  # finite
    }
)
"""One row a record that holds readings. The lists keep names and values of a message beside each other,
so that the device id is hashed once a message and not once a reading."""

TICKS: Final = pl.Schema(
    {
        "offset": pl.Int64(),
        "append_time": pl.Int64(),
        "worker": pl.String(),  # the ingest worker that says so
        "ts": pl.Int64(),  # everything it received before this instant is in the log
    }
)
"""One row a tick: a record by which an ingest worker says that it is neither down nor behind."""

LATE: Final = pl.Schema(
    {
        "offset": pl.Int64(),
        "append_time": pl.Int64(),
        "event_time": pl.Int64(),
        "bucket": pl.Int64(),  # start of the window it belongs to, closed before its record
        "device_id": pl.String(),
        "metric": pl.String(),
        "value": pl.Float64(),
    }
)
"""One row a late reading, in the order of the log (offset, then its place in the message)."""

READINGS: Final = pl.Schema(
    {
        "event_time": pl.Int64(),
        "device_id": pl.String(),
        "metric": pl.String(),
        "value": pl.Float64(),
        "offset": pl.Int64(),
    }
)
"""One row a reading, in the order of the log (offset, then its place in the message)."""
