"""``Telemetry`` records that are alike: of one layout, so that only device id, time and values differ between them.

Most batches are so, since a fleet's messages are written by one encoder and name the same metrics. Then a record need
not be parsed: it is compared, byte for byte, with one that was read, all but its id, time and values; and those stand
in columns of a matrix. It costs a third of parsing.

Rule: what is read here is what every parser reads. A record counts as alike only where all bytes that make its
structure (tags, lengths, names, how long the time is) equal the model's, and its device id is printable ASCII. Others
are pointed out, to be parsed; where they are many, nothing is answered, and all are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataflows.decoding.columns import COLUMNAR_BYTES_MAX, Columns, Flags, Ints
from dataflows.decoding.names import flaw_in

ALIKE_MIN: Final = 4  # records of one size that are worth a model
SIZES_MAX: Final = 32  # ids of different lengths make records of different sizes
ODD_SHARE: Final = 4  # of so many records one may be odd; with more, to parse all at once is as quick
BLOCK: Final = 4_096  # records; half as quick with 20,000
TIME_BYTES_MAX: Final = 9  # 63 bits; longer ones are negative

_DEVICE_ID, _TS, _METRICS, _KEY, _VALUE = 0x0A, 0x10, 0x1A, 0x0A, 0x11
_ONE_BYTE_MAX: Final = 0x7F  # a length that takes one byte
_SPACE, _DELETE = 0x20, 0x7F  # printable ASCII is from the one up to the other
_ALL: Final = (1 << 64) - 1
VIEW_BYTES: Final = 16  # of a string in Arrow's view layout: its length, then itself
INLINE_MAX: Final = 12  # or, where it is longer, 4 bytes of it, a buffer's number, and the place there

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Layout:
    """A record that was read, and where things stand in it and in all that are like it."""

    size: int
    words: Sequence[tuple[int, int, int]]  # place, mask and content of 8 bytes; together all bits that are equal in all
    device: slice
    time: slice
    values: Sequence[int]  # the first byte of each double
    names: Sequence[bytes]  # of the metrics: lawful, and none twice

    @classmethod
    def of(cls, record: bytes) -> "Layout | None":
        """The layout of a record that is written as ``TelemetryEncoder`` writes it; None for any other."""
        if len(record) < 2 or record[0] != _DEVICE_ID or not 1 <= record[1] <= _ONE_BYTE_MAX:
            return None
        device = slice(2, 2 + record[1])
        time = _time(record, device.stop)
        at = len(record) if time is None else time.stop
        names, values = [], []
        while at < len(record):
            if (value := _value(record, at)) is None:
                return None
            names.append(record[at + 4 : value - 1])
            values.append(value)
            at = value + 8
        if time is None or not names or len(set(names)) < len(names) or not all(map(_is_lawful, names)):
            return None
        fixed = bytearray(b"\xff" * len(record))
        fixed[device], fixed[time] = bytes(record[1]), b"\x80" * (time.stop - time.start)
        for value in values:
            fixed[value : value + 8] = bytes(8)
        return cls(len(record), list(_words(record, fixed)), device, time, values, names)


def _words(record: bytes, fixed: bytearray) -> Iterator[tuple[int, int, int]]:
    """Words of 8 bytes that cover all bits set in ``fixed``: place, those bits, and what they are in ``record``."""
    at = 0
    while at < len(record):
        if fixed[at]:
            first = min(at, len(record) - 8)
            mask = int.from_bytes(fixed[first : first + 8], "little")
            yield first, mask, int.from_bytes(record[first : first + 8], "little") & mask
            at = first + 8
        else:
            at += 1


def _time(record: bytes, at: int) -> slice | None:
    """Where the varint of a time stands whose tag is at ``at``."""
    if record[at : at + 1] != bytes([_TS]):
        return None
    end = at + 1
    while end < len(record) and record[end] > 0x7F:
        end += 1
    return slice(at + 1, end + 1) if end < len(record) and end - at <= TIME_BYTES_MAX else None


def _value(record: bytes, at: int) -> int | None:
    """Where the double of a map entry stands that begins at ``at``; None where it is no plain entry."""
    if len(record) < at + 4 or record[at] != _METRICS or record[at + 2] != _KEY:
        return None
    size, key = record[at + 1], record[at + 3]
    value = at + 5 + key
    if size > _ONE_BYTE_MAX or size != key + 11 or value + 8 > len(record) or record[value - 1] != _VALUE:
        return None
    return value


def _is_lawful(name: bytes) -> bool:
    try:
        return flaw_in(name.decode()) is None
    except UnicodeDecodeError:
        return False


class _Read(NamedTuple):
    """Records of one layout: ids as rows of bytes, values as rows of doubles. What is odd holds stand-ins."""

    device: Bytes
    time: Ints
    value: npt.NDArray[np.float64]
    odd: Flags

    @classmethod
    def by(cls, layout: Layout, records: Sequence[bytes]) -> "_Read":
        """Read records of the layout's size, so many at a time that they stay in the processor's cache."""
        blocks = [cls._by(layout, records[low : low + BLOCK]) for low in range(0, len(records), BLOCK)]
        return blocks[0] if len(blocks) == 1 else cls(*map(np.concatenate, zip(*blocks, strict=True)))

    @classmethod
    def _by(cls, layout: Layout, records: Sequence[bytes]) -> "_Read":
        count, joined = len(records), b"".join(records)

        def column(dtype: str, at: int) -> npt.NDArray[Any]:
            return np.ndarray((count,), dtype, joined, at, (layout.size,))

        odd = np.zeros(count, np.bool_)
        for at, mask, content in layout.words:
            word = column("<u8", at)
            odd |= (word if mask == _ALL else word & np.uint64(mask)) != np.uint64(content)
        width = layout.device.stop - layout.device.start
        device = column(f"V{width}", layout.device.start).copy().view(np.uint8).reshape(count, width)
        if int(np.min(device)) < _SPACE or int(np.max(device)) >= _DELETE:
            odd |= ((device < _SPACE) | (device >= _DELETE)).any(axis=1)
        time = np.zeros(count, np.int64)
        for place, at in enumerate(range(layout.time.start, layout.time.stop)):
            time |= (column("u1", at) & np.uint8(0x7F)).astype(np.int64) << 7 * place
        value = np.empty((count, len(layout.values)))
        for place, at in enumerate(layout.values):
            value[:, place] = column("<f8", at)
        device[odd], time[odd], value[odd] = ord("-"), 0, 1.0
        return cls(device, time, value, odd)

    def views(self, base: int = 0) -> Bytes:
        """The ids as strings whose bytes begin at ``base``: a row each."""
        count, width = self.device.shape
        views = np.zeros((count, VIEW_BYTES), np.uint8)
        views[:, 0] = width
        shown = min(width, INLINE_MAX if width <= INLINE_MAX else 4)
        views[:, 4 : 4 + shown] = self.device[:, :shown]
        if width > INLINE_MAX:
            views.view(np.int32)[:, 3] = np.arange(base, base + count * width, width)
        return views


def read_alike(values: Sequence[bytes], sizes: list[int]) -> tuple[Columns, Flags] | None:
    """The columns of records, each of ``sizes`` bytes, and which of them are odd: their rows mean nothing.

    None where too many are odd. Rows that are not odd have a lawful device id and lawful metrics, none twice, each a
    double; their times and values may break a rule yet.
    """
    count = len(values)
    odd_max = 1 + count // ODD_SHARE
    if count < ALIKE_MIN:
        return None
    if sizes.count(sizes[0]) == count:
        layout = Layout.of(values[0]) if sizes[0] <= COLUMNAR_BYTES_MAX else None
        if layout is None or (read := _Read.by(layout, values)).odd.sum() > odd_max:
            return None
        return _columns(layout.names, _strings(read.views(), read.device), read.time, read.value), read.odd
    return _of_sizes(values, np.array(sizes), odd_max)


def _of_sizes(values: Sequence[bytes], sizes: Ints, odd_max: int) -> tuple[Columns, Flags] | None:
    """As ``read_alike``, where ids differ in length: a layout for each size, all of the same metrics."""
    counts = np.bincount(sizes[sizes <= COLUMNAR_BYTES_MAX])
    often = np.flatnonzero(counts >= ALIKE_MIN)
    if not 1 <= len(often) <= SIZES_MAX or counts[often].sum() < len(values) - odd_max:
        return None
    names: Sequence[bytes] | None = None
    odd, place = np.ones(len(values), np.bool_), np.zeros(len(values), np.int64)
    found: list[_Read] = []
    for size in often.tolist():
        rows = np.flatnonzero(sizes == size)
        layout = Layout.of(values[rows[0]])
        if layout is None or (names is not None and layout.names != names):
            return None
        names = layout.names
        found.append(_Read.by(layout, itemgetter(*rows.tolist())(values)))
        place[rows] = np.arange(len(rows)) + sum(len(read.time) for read in found[:-1])
        odd[rows] = found[-1].odd
    if names is None or odd.sum() > odd_max:
        return None
    begins = np.cumsum([0, *(read.device.size for read in found)]).tolist()
    views = np.concatenate([read.views(base) for read, base in zip(found, begins[:-1], strict=True)])[place]
    device_id = _strings(views, np.concatenate([read.device.ravel() for read in found]))
    time, value = (np.concatenate([read[column] for read in found])[place] for column in (1, 2))
    return _columns(names, device_id, time, value), odd


def _columns(
    names: Sequence[bytes], device_id: pa.StringViewArray, time: Ints, value: npt.NDArray[np.float64]
) -> Columns:
    count, width = value.shape
    views, place = bytearray(), 0
    for name in names:
        views += len(name).to_bytes(4, "little")
        inline = name if len(name) <= INLINE_MAX else name[:4] + bytes(4) + place.to_bytes(4, "little")
        views += inline.ljust(INLINE_MAX, b"\0")
        place += len(name)
    metric = _strings(np.tile(np.frombuffer(views, np.uint8), count), np.frombuffer(b"".join(names), np.uint8))
    return Columns(
        device_id=device_id,
        ts=time,
        starts=np.arange(0, (count + 1) * width, width, dtype=np.int32),
        metric=metric,
        value=value.ravel(),
    )


def _strings(views: Bytes, data: Bytes) -> pa.StringViewArray:
    """Strings by Arrow's variable-size binary view layout. ``data`` is UTF-8."""
    buffers = [None, pa.py_buffer(views), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string_view(), views.size // VIEW_BYTES, buffers)
