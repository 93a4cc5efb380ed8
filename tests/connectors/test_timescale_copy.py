"""Frames as COPY BINARY has them: what ``struct`` makes of each value, one after the other."""

import struct
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors import timescale_copy
from connectors.timescale_copy import as_sent

SCHEMA = pl.Schema(
    {"at": pl.Int64(), "device_id": pl.String(), "value": pl.Float64(), "metric": pl.String(), "revision": pl.Int32()}
)
EPOCH_2000_MS = 946_684_800_000

# Equal lengths leave nothing out, and one long name among short ones leaves out most.
texts = st.sampled_from(["", "ab", "cd", "é", "🌡", "x" * 256]) | st.text(max_size=4)
doubles = st.sampled_from([0.0, -0.0, 5e-324]) | st.floats()
row = st.fixed_dictionaries(
    {
        "at": st.integers(-(2**40), 2**45),
        "device_id": texts,
        "value": doubles,
        "metric": texts,
        "revision": st.integers(-(2**31), 2**31 - 1),
    }
)


def sent(value: Any, kind: pl.DataType, is_instant: bool) -> bytes:
    match kind:
        case pl.String():
            data = value.encode()
        case pl.Float64():
            data = struct.pack(">d", value)
        case pl.Int32():
            data = struct.pack(">i", value)
        case _:
            data = struct.pack(">q", (value - EPOCH_2000_MS) * 1000 if is_instant else value)
    return struct.pack(">i", len(data)) + data


@given(st.lists(row, max_size=6), st.integers(0, 5), st.sampled_from([{"at"}, set()]), st.sampled_from([1, 2, 100]))
@example([{"at": 0, "device_id": "", "value": 1.0, "metric": "", "revision": 0}], 0, {"at"}, 100)
def test_each_row_is_sent_as_it_is(rows: list[dict[str, Any]], first: int, instants: set[str], at_once: int) -> None:
    """Texts of any length, doubles to the bit, instants in PostgreSQL's own time; part of a frame, several matrices."""
    expected = b"".join(
        struct.pack(">h", len(SCHEMA)) + b"".join(sent(one[n], kind, n in instants) for n, kind in SCHEMA.items())
        for one in rows[first:]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timescale_copy, "ROWS_AT_ONCE", at_once)
        assert b"".join(as_sent(pl.DataFrame(rows, schema=SCHEMA)[first:], instants)) == expected
