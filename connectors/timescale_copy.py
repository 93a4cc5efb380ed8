"""Frames into tables by COPY BINARY, laid out a column at a time.

psycopg takes a Python object a value and a call a row, together 0.9 µs a rollup. Here thousands of rows stand in one
matrix in which every text is as wide as the longest, and a mask leaves out what a row does not use: 0.1 µs.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from psycopg import sql

from connectors.timescale_connection import Connection

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ROWS_AT_ONCE: Final = 8_192
_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_NUMBERS: Final[Mapping[pl.DataType, str]] = {pl.Int32(): ">i4", pl.Int64(): ">i8", pl.Float64(): ">f8"}
_EPOCH_2000_MS: Final = 946_684_800_000


def copy_in(transaction: Connection, statement: sql.Composed, rows: pl.DataFrame, instants: Collection[str]) -> None:
    """Insert ``rows``, whose columns are those of ``statement`` in its order, without nulls.

    String is text, Int32 int, Int64 bigint, Float64 double precision; the columns of ``instants`` are ms since the
    epoch and become timestamptz.
    """
    with transaction.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_BEGIN)
        for some in rows.iter_slices(ROWS_AT_ONCE):
            copy.write(as_sent(some, instants))
        copy.write(_END)


def as_sent(rows: pl.DataFrame, instants: Collection[str]) -> bytes:
    """At least one row, as COPY BINARY has it: the number of fields, then of each its size in bytes and itself."""
    fields = [_Field.of(column, column.name in instants) for column in rows]
    parts = [("count", ">i2")]
    for place, field in enumerate(fields):
        parts += [(f"{place} size", ">i4"), (f"{place}", field.kind)]
    sent = np.empty(len(rows), parts)
    sent["count"] = len(fields)
    for place, field in enumerate(fields):
        sent[f"{place} size"], sent[f"{place}"] = field.size, field.content
    if all(field.kept is None for field in fields):
        return sent.tobytes()
    kept = np.ones(len(rows), [(name, np.bool_, np.dtype(kind).itemsize) for name, kind in parts])
    for place, field in enumerate(fields):
        if field.kept is not None:
            kept[f"{place}"] = field.kept
    return sent.view(np.uint8)[kept.view(np.bool_).ravel()].tobytes()


class _Field(NamedTuple):
    """A column: dtype of the matrix, content, size of each row's, and which bytes of the content count (None: all)."""

    kind: str
    content: npt.NDArray[Any]
    size: int | Ints
    kept: Flags | None = None

    @classmethod
    def of(cls, column: pl.Series, is_instant: bool) -> "_Field":
        if column.dtype == pl.String():
            return cls._of_text(column)
        kind, numbers = _NUMBERS[column.dtype], column.to_numpy()
        return cls(kind, (numbers - _EPOCH_2000_MS) * 1000 if is_instant else numbers, np.dtype(kind).itemsize)

    @classmethod
    def _of_text(cls, column: pl.Series) -> "_Field":
        arrow = column.to_arrow(compat_level=pl.CompatLevel.oldest())  # all bytes in one buffer, and where each ends
        ends = np.frombuffer(arrow.buffers()[1], np.int64)[arrow.offset : arrow.offset + len(arrow) + 1]
        data = np.frombuffer(arrow.buffers()[2] or b"", np.uint8)[ends[0] : ends[-1]]
        sizes = np.diff(ends)
        width = max(int(sizes.max()), 1)
        if int(sizes.min()) == width:
            return cls(f"V{width}", data.view(f"V{width}"), width)
        content, kept = np.zeros((len(column), width), np.uint8), np.arange(width) < sizes[:, None]
        content[kept] = data
        return cls(f"V{width}", content.view(f"V{width}")[:, 0], sizes, kept)
