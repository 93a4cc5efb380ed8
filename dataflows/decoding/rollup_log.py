"""Records of ``aggregates.minute`` to frames: rollups and the closing of windows.

Trusts nothing: others may write there. What a record becomes depends on that record alone, never on its neighbours.
Good batches stay columnar: Rust (ptars) decodes to Arrow, and the rules are checked on whole columns; the records of a
batch that may break one are looked at one by one.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import ptars
from google.protobuf.message import DecodeError

from dataflows.decoding.columns import COLUMNAR_BYTES_MAX, unlawful
from dataflows.decoding.names import flaw_in
from dataflows.decoding.reasons import Flaw, Reason, shown
from dataflows.decoding.times import TIME_MAX_MS, TIME_MIN_MS
from schemas.flags import CLOSED, TOLD, RollupSlice
from schemas.log import LogBatch, Refused
from schemas.rollup_pb2 import Rollup

Flags = npt.NDArray[np.bool_]

_rollups: Final = ptars.HandlerPool([Rollup.DESCRIPTOR.file]).get_for_message(Rollup.DESCRIPTOR)
_FINITE: Final = ("mean", "min", "max", "first", "last")
_EMPTY: Final = Rollup().SerializeToString()


def decode_rollups(batch: LogBatch, length_ms: int) -> RollupSlice:
    """Each record of ``batch`` as a rollup, a closing or a refusal, by offset. Windows are of ``length_ms``."""
    refused: list[Refused] = []
    closed: list[tuple[int, int]] = []
    ends = {row: end for row, headers in batch.headers.items() if (end := dict(headers).get(CLOSED)) is not None}
    frame, suspects = _columnar(batch, length_ms)
    suspects[list(ends)] = True
    for row in np.flatnonzero(suspects).tolist():
        flaw = _flaw_in_closing(ends[row], length_ms) if row in ends else _flaw_in(batch.values[row], length_ms)
        if flaw is not None:
            where = batch.offsets[row], batch.append_times[row]
            refused.append(Refused(*where, flaw.reason, flaw.detail, batch.values[row]))
        elif row in ends:
            closed.append((batch.offsets[row], int(ends[row])))
        else:
            suspects[row] = False
    rollups = frame.filter(pl.Series(~suspects)) if suspects.any() else frame
    return RollupSlice(batch.partition, batch.start, batch.end, rollups, closed, refused, batch.anchor)


def _columnar(batch: LogBatch, length_ms: int) -> tuple[pl.DataFrame, Flags]:
    """A row a record, and which rows may break a rule."""
    if not batch.values:
        return pl.DataFrame(schema=TOLD), np.zeros(0, np.bool_)
    values, unread = _readable(list(batch.values))  # ptars takes nothing but a list
    arrow = _rollups.list_to_record_batch(values)
    names = {name for name in TOLD if name != "offset"}
    columns = {name: pl.from_arrow(arrow.column(name)) for name in (*sorted(names), "length_ms")}
    frame = pl.DataFrame({"offset": pl.Series(batch.offsets, dtype=pl.Int64), **columns})
    flags: Flags = frame.select(~_sound(length_ms)).to_series().to_numpy().copy()
    for name in ("device_id", "metric"):
        flags[unlawful(arrow.column(name))] = True
    flags[unread] = True
    return frame.select(pl.col(name).cast(kind) for name, kind in TOLD.items()), flags


def _sound(length_ms: int) -> pl.Expr:
    """Whether the numbers of a row are those of a rollup."""
    times = pl.col("bucket").is_between(TIME_MIN_MS, TIME_MAX_MS) & (pl.col("bucket") % length_ms == 0)
    finite = pl.all_horizontal(pl.col(name).is_finite() for name in _FINITE)
    return (
        times
        & finite
        & (pl.col("length_ms") == length_ms)
        & (pl.col("count") >= 1)
        & (pl.col("revision") >= 0)
        & pl.col("m2").is_not_nan()
        & (pl.col("m2") >= 0)
    )


def _readable(values: list[bytes]) -> tuple[list[bytes], list[int]]:
    """``values`` with an empty message for each that is none, and the indices of those.

    ptars fails a batch for one record and does not say which; records are then tried one by one.
    """
    unread = [row for row, value in enumerate(values) if len(value) > COLUMNAR_BYTES_MAX]
    if not unread and _decodes(values):
        return values, []
    long = set(unread)
    unread += [row for row, value in enumerate(values) if row not in long and not _decodes([value])]
    kept = values.copy()
    for row in unread:
        kept[row] = _EMPTY
    return kept, unread


def _decodes(values: list[bytes]) -> bool:
    try:
        _rollups.list_to_record_batch(values)
    except BaseException as error:  # ptars 0.0.25 panics at a length beyond 63 bits; that is no Exception here
        if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
            raise
        return False
    return True


def _flaw_in(value: bytes, length_ms: int) -> Flaw | None:
    """What is wrong with a record that may be no rollup."""
    if len(value) > COLUMNAR_BYTES_MAX:
        return Flaw(Reason.TOO_LARGE, f"{len(value)} bytes; a rollup has a few hundred")
    try:
        said = Rollup.FromString(value)
    except DecodeError as error:
        return Flaw(Reason.BAD_PROTOBUF, str(error)[:200])
    for what, name in (("device id", said.device_id), ("metric", said.metric)):
        if words := flaw_in(name):
            return Flaw(Reason.BAD_NAME, f"{what} {shown(name)} {words}")
    if said.length_ms != length_ms:
        return Flaw(Reason.BAD_SHAPE, f"a window of {said.length_ms} ms, where windows have {length_ms}")
    if said.count < 1 or said.revision < 0:
        return Flaw(Reason.BAD_SHAPE, f"count is {said.count} and revision {said.revision}")
    if math.isnan(said.m2) or said.m2 < 0 or not all(math.isfinite(getattr(said, name)) for name in _FINITE):
        return Flaw(Reason.NOT_A_NUMBER, "an aggregate is not finite, or m2 is negative")
    return _flaw_in_bucket(said.bucket, length_ms) or (
        None if _decodes([value]) else Flaw(Reason.BAD_PROTOBUF, "cannot be read as a rollup")
    )


def _flaw_in_bucket(bucket: int, length_ms: int) -> Flaw | None:
    if bucket % length_ms or not TIME_MIN_MS <= bucket <= TIME_MAX_MS:
        return Flaw(Reason.BAD_TIMESTAMP, f"bucket {bucket} is not the start of a window of {length_ms} ms")
    return None


def _flaw_in_closing(end: bytes, length_ms: int) -> Flaw | None:
    if not (end.isdigit() and len(end) <= 15):
        return Flaw(Reason.BAD_SHAPE, f"the header closed is {shown(end.decode(errors='replace'))}, not a time")
    return _flaw_in_bucket(int(end) - length_ms, length_ms)
