"""Rollups as records: rows of a frame to serialised ``Rollup`` messages, a column at a time.

Rust (ptars) encodes whole columns, ten times as fast as a message object a row. It takes -0.0 for the default of a
proto3 field and leaves it out, so rows that hold one are encoded by protobuf itself: what is published is what the
row is, to the bit.
"""

from typing import Final

import numpy as np
import polars as pl
import ptars

from schemas.rollup_pb2 import Rollup

_rollups: Final = ptars.HandlerPool([Rollup.DESCRIPTOR.file]).get_for_message(Rollup.DESCRIPTOR)
_SCHEMA: Final = _rollups.schema()


def encode(rows: pl.DataFrame, length_ms: int) -> list[bytes]:
    """One message a row. ``rows`` has the columns of ``schemas.aggregates.ROLLUPS`` and ``revision``."""
    whole = rows.with_columns(pl.lit(length_ms, pl.Int64).alias("length_ms")).select(_SCHEMA.names)
    (batch,) = whole.to_arrow().cast(_SCHEMA).combine_chunks().to_batches() or [None]
    encoded: list[bytes] = [] if batch is None else _rollups.record_batch_to_array(batch).to_pylist()
    for index in _negative_zeros(rows):
        encoded[index] = Rollup(**whole.row(index, named=True)).SerializeToString()
    return encoded


def _negative_zeros(rows: pl.DataFrame) -> list[int]:
    """Indices of rows with a -0.0."""
    found = np.zeros(len(rows), np.bool_)
    for column in rows.select(pl.selectors.float()):
        values = column.to_numpy()
        found |= (values == 0.0) & np.signbit(values)
    return np.flatnonzero(found).tolist()
