"""``Telemetry`` records as Arrow columns, and the rules of a message checked on whole columns at once.

Rule: a row is judged by its own bytes alone. Nothing is refused here: rows that may break a rule are pointed out, and
are then judged one by one. To point out too many costs time; to miss one would let a wrong row through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import ptars
import pyarrow as pa
from google.protobuf.message import DecodeError

from dataflows.decoding.names import NAME_BYTES_MAX
from dataflows.decoding.times import TIME_MAX_MS, TIME_MIN_MS
from schemas.telemetry_pb2 import Telemetry

Ints = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]

COLUMNAR_BYTES_MAX: Final = 4_096
"""Records above it are judged one by one. ptars 0.0.25 recurses without a limit into nested groups, a byte a level:
40 KB of b"+" end the process where a thread has 2 MB of stack. Lift it when ptars has a limit (prost's is 100)."""

ROWS_MAX: Final = 2**31 // COLUMNAR_BYTES_MAX  # Arrow's offsets have 31 bits
_PAIRS_MAX: Final = 4_000_000  # (row, name) pairs worth an array of counters

_telemetry: Final = ptars.HandlerPool([Telemetry.DESCRIPTOR.file]).get_for_message(Telemetry.DESCRIPTOR)


@dataclass(frozen=True, slots=True)
class Columns:
    """Messages of a batch, a row each. Metrics of row i are those from ``starts[i]`` to ``starts[i + 1]``."""

    device_id: pa.StringArray
    ts: Ints
    starts: Ints
    metric: pa.StringArray
    value: npt.NDArray[np.float64]
    raw: pa.BinaryArray | None = None  # None where no record has any


def parse(values: Sequence[bytes]) -> Columns:
    """The columns of ``values``: at most ROWS_MAX, of COLUMNAR_BYTES_MAX. ``ValueError`` where one is no message."""
    try:
        batch = _telemetry.list_to_record_batch(values)
    except BaseException as error:
        # A length beyond 63 bits makes ptars 0.0.25 panic, which is no Exception here, though it leaves all in order.
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"ptars: {error}") from None
    metrics = batch.column("metrics")
    return Columns(
        device_id=batch.column("device_id"),
        ts=batch.column("ts").to_numpy(),
        starts=metrics.offsets.to_numpy(),
        metric=metrics.keys,
        value=metrics.items.to_numpy(),
        raw=batch.column("raw"),
    )


def parse_all(values: Sequence[bytes], sizes: Sequence[int]) -> Columns:
    """The columns of at least one of ``values``. Those that cannot be had so are empty messages: suspicious.

    ptars does not say which it refuses. Google's parser tells quickly where to look; the rest is found by halving.
    """
    if max(sizes) > COLUMNAR_BYTES_MAX:
        values = [value if len(value) <= COLUMNAR_BYTES_MAX else b"" for value in values]
    for refused in (_refused_by_both, _refused):
        try:
            return parse(values)
        except ValueError:
            values = list(values)
            for row in refused(values):
                values[row] = b""
    return parse(values)


def _refused_by_both(values: Sequence[bytes]) -> list[int]:
    """Indices of those that neither Google's parser takes nor, each by itself, ``parse``."""
    return [row for row, value in enumerate(values) if not _google_takes(value) and _refused([value])]


def _google_takes(value: bytes) -> bool:
    try:
        Telemetry.FromString(value)
    except DecodeError:
        return False
    return True


def _refused(values: Sequence[bytes], first: int = 0) -> list[int]:
    """Indices of those that ``parse`` refuses; the first of ``values`` has the index ``first``."""
    try:
        parse(values)
    except ValueError:
        if len(values) == 1:
            return [first]
        half = len(values) // 2
        return _refused(values[:half], first) + _refused(values[half:], first + half)
    return []


def suspicious(columns: Columns, sizes: Sequence[int], metrics_max: int) -> Flags:
    """Rows that may break a rule, but for that of the device id. ``sizes`` are the bytes of each record.

    The rules: names, finite values, no metric twice, 1 to ``metrics_max`` metrics, a time that can be written as a
    date; and that no metric was skipped over because its value has another type.
    """
    flags = out_of_bounds(columns, metrics_max)
    counts = np.diff(columns.starts)
    row = np.repeat(np.arange(len(counts)), counts)  # of each metric
    flags[row[unlawful(columns.metric)]] = True
    if counts.max(initial=0) > 1:
        flags[_repeated(row, columns.metric)] = True
    zeros = with_zeros(columns)
    if zeros.any():
        flags |= zeros & (canonical_sizes(columns) != np.asarray(sizes))
    return flags


def out_of_bounds(columns: Columns, metrics_max: int) -> Flags:
    """Rows with too few or too many metrics, a time that cannot be written as a date, or a value that is not finite."""
    counts = np.diff(columns.starts)
    flags = (counts < 1) | (counts > metrics_max) | (columns.ts < TIME_MIN_MS) | (columns.ts > TIME_MAX_MS)
    if not np.isfinite(columns.value).all():
        wild = np.flatnonzero(~np.isfinite(columns.value))
        flags[np.searchsorted(columns.starts, wild, side="right") - 1] = True
    return flags


def with_zeros(columns: Columns) -> Flags:
    """Rows with a metric of 0, which may be one that was passed over."""
    flags = np.zeros(len(columns.ts), dtype=np.bool_)
    zeros = np.flatnonzero(columns.value == 0)
    flags[np.searchsorted(columns.starts, zeros, side="right") - 1] = True
    return flags


def _spans(strings: Any) -> Ints:
    """Where each of ``strings`` begins in their bytes, and where the last one ends."""
    ends: Ints = np.frombuffer(strings.buffers()[1], dtype=np.int32)
    return ends[strings.offset : strings.offset + len(strings) + 1]


def unlawful(names: pa.StringArray) -> Ints:
    """Indices of names that break the rule of ``dataflows.decoding.names``."""
    if not len(names):
        return np.empty(0, dtype=np.int64)
    spans = _spans(names)
    sizes = np.diff(spans)
    wrong = np.flatnonzero((sizes < 1) | (sizes > NAME_BYTES_MAX))
    data = np.frombuffer(names.buffers()[2] or b"", dtype=np.uint8)[spans[0] : spans[-1]]
    if (data < 0x20).any() or (data == 0x7F).any() or (data == 0xC2).any():
        c1 = np.zeros(len(data), dtype=np.bool_)  # U+0080 to U+009F are 0xC2 and a byte below 0xA0
        c1[:-1] = (data[:-1] == 0xC2) & (data[1:] < 0xA0)
        control = np.flatnonzero((data < 0x20) | (data == 0x7F) | c1) + spans[0]
        wrong = np.union1d(wrong, np.searchsorted(spans, control, side="right") - 1)
    return wrong


def _repeated(row: Ints, metric: pa.StringArray) -> Ints:
    """Rows in which a metric stands twice: as protobuf has it, the last one counts."""
    encoded = metric.dictionary_encode()
    names = len(encoded.dictionary)
    pair: Ints = row * names + encoded.indices.to_numpy()
    if (int(row[-1]) + 1) * names <= _PAIRS_MAX:
        rows: Ints = np.flatnonzero(np.bincount(pair) > 1) // names
        return rows
    pair.sort()
    twice: Ints = pair[1:][pair[1:] == pair[:-1]] // names
    return twice


def canonical_sizes(columns: Columns) -> Ints:
    """Bytes of each row if nothing else is in it, and every metric's value is written as a double.

    A value of another type (from a producer with ``map<string, float>``) is passed over as an unknown field, as
    protobuf has it, and reads as 0: a silent lie, but one that gives the record another size.
    """
    key = _field_sizes(np.diff(_spans(columns.metric)))
    total = np.concatenate(([0], np.cumsum(_field_sizes(key + 9))))
    metrics = total[columns.starts[1:]] - total[columns.starts[:-1]]
    ts = columns.ts.view(np.uint64)
    time = np.where(ts == 0, 0, 2 + np.searchsorted(_VARINT_ENDS, ts, side="right"))
    assert columns.raw is not None
    others = [np.diff(_spans(strings)) for strings in (columns.device_id, columns.raw)]
    device_id, raw = (np.where(size == 0, 0, _field_sizes(size)) for size in others)
    sizes: Ints = metrics + time + device_id + raw
    return sizes


def _field_sizes(size: Ints) -> Ints:
    """Bytes of fields with tag and length: one byte for it below 128, two up to COLUMNAR_BYTES_MAX and beyond."""
    sizes: Ints = size + 2 + (size > 127)
    return sizes


_VARINT_ENDS: Final = np.array([1 << bits for bits in range(7, 64, 7)], dtype=np.uint64)
