"""``Telemetry`` records that are alike: of one layout, so that only device id, time and values differ between them.

Most batches are so, since a fleet's messages are written by one encoder and name the same metrics. Then a record need
not be parsed: it is compared, byte for byte, with one that was read, all but its id, time and values; and those stand
in columns of a matrix. It costs a quarter of parsing. Ids may differ in length: what follows them may not.

Rule: what is read here is what every parser reads. A record counts as alike only where all bytes that make its
structure (tags, lengths, names, how long the time is) equal the model's, and its device id is printable ASCII. Others
are pointed out, to be parsed; where they are many, nothing is answered, and all are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataflows.decoding.columns import COLUMNAR_BYTES_MAX, Columns, Flags, Ints
from dataflows.decoding.names import flaw_in
from schemas.packed import Packed

ALIKE_MIN: Final = 4  # records that are worth a model
ODD_SHARE: Final = 4  # of so many records one may be odd; with more, to parse all at once is as quick
BLOCK: Final = 4_096  # records; half as quick with 20,000
TIME_BYTES_MAX: Final = 8  # 56 bits: no time that is believed takes more

_DEVICE_ID, _TS, _METRICS, _KEY, _VALUE = 0x0A, 0x10, 0x1A, 0x0A, 0x11
_HEAD: Final = 2  # bytes before the device id: its tag and its length
_ONE_BYTE_MAX: Final = 0x7F  # a length that takes one byte
_SPACE, _PRINTABLE = 0x20, 0x5F  # of printable ASCII the first, and how many there are
_ALL: Final = (1 << 64) - 1
VIEW_BYTES: Final = 16  # of a string in Arrow's view layout: its length, then itself
INLINE_MAX: Final = 12  # or, where it is longer, 4 bytes of it, a buffer's number, and the place there

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Layout:
    """What follows the device id in a record that was read, and in all that are like it."""

    columns: np.dtype[Any]  # "time", "value 0" … and "word 0" …, which cover all bits that are equal in all
    words: Sequence[tuple[int, int]]  # mask and content of each
    time_bytes: int
    names: tuple[bytes, ...]  # of the metrics: lawful, and none twice

    @classmethod
    def of(cls, record: bytes) -> "Layout | None":
        """The layout of a record that is written as ``TelemetryEncoder`` writes it; None for any other."""
        if len(record) < _HEAD or record[0] != _DEVICE_ID or not 1 <= record[1] <= _ONE_BYTE_MAX:
            return None
        tail = record[_HEAD + record[1] :]
        time = _time(tail)
        at = len(tail) if time is None else time.stop
        names, values = [], []
        while at < len(tail):
            if (value := _value(tail, at)) is None:
                return None
            names.append(tail[at + 4 : value - 1])
            values.append(value)
            at = value + 8
        if time is None or not names or len(set(names)) < len(names) or not all(map(_is_lawful, names)):
            return None
        return cls._of(tail, time, values, tuple(names))

    @classmethod
    def _of(cls, tail: bytes, time: slice, values: Sequence[int], names: tuple[bytes, ...]) -> "Layout":
        fixed = bytearray(b"\xff" * len(tail))
        fixed[time] = b"\x80" * (time.stop - time.start)
        for value in values:
            fixed[value : value + 8] = bytes(8)
        columns = {"time": ("<i8", time.start)} | {f"value {i}": ("<f8", at) for i, at in enumerate(values)}
        words: list[tuple[int, int]] = []
        at = 0
        while at < len(tail):
            if fixed[at]:
                first = min(at, len(tail) - 8)
                mask = int.from_bytes(fixed[first : first + 8], "little")
                columns[f"word {len(words)}"] = ("<u8", first)
                words.append((mask, int.from_bytes(tail[first : first + 8], "little") & mask))
                at = first + 8
            else:
                at += 1
        formats, offsets = zip(*columns.values(), strict=True)
        dtype = np.dtype({"names": list(columns), "formats": formats, "offsets": offsets, "itemsize": len(tail)})
        return cls(dtype, words, time.stop - time.start, names)


def _time(tail: bytes) -> slice | None:
    """Where the varint of a time stands whose tag comes first."""
    if tail[:1] != bytes([_TS]):
        return None
    end = 1
    while end < len(tail) and tail[end] > 0x7F:
        end += 1
    return slice(1, end + 1) if end < len(tail) and end <= TIME_BYTES_MAX else None


def _value(tail: bytes, at: int) -> int | None:
    """Where the double of a map entry stands that begins at ``at``; None where it is no plain entry."""
    if len(tail) < at + 4 or tail[at] != _METRICS or tail[at + 2] != _KEY:
        return None
    size, key = tail[at + 1], tail[at + 3]
    value = at + 5 + key
    if size > _ONE_BYTE_MAX or size != key + 11 or value + 8 > len(tail) or tail[value - 1] != _VALUE:
        return None
    return value


def _is_lawful(name: bytes) -> bool:
    try:
        return flaw_in(name.decode()) is None
    except UnicodeDecodeError:
        return False


class _Read(NamedTuple):
    """Records as arrays: ids as rows of bytes, values as rows of doubles. What is odd holds stand-ins."""

    device: Bytes  # zeros after the id
    width: Ints  # bytes of the id
    time: Ints
    value: npt.NDArray[np.float64]
    odd: Flags

    @classmethod
    def by(cls, layout: Layout, records: Packed) -> "_Read":
        """Read records, so many at a time that they stay in the processor's cache."""
        count = len(records)
        width = records.sizes - (_HEAD + layout.columns.itemsize)
        odd = (width < 1) | (width > _ONE_BYTE_MAX)
        width[odd] = 1
        head = _cut(records, _HEAD, np.minimum(records.starts[:-1], len(records.data) - _HEAD)).view("<u2")
        odd |= head != (width << 8 | _DEVICE_ID)
        value = np.empty((count, len(layout.names)))
        read = cls(_ids(records, width), width, np.empty(count, np.int64), value, odd)
        for low in range(0, count, BLOCK):
            read._fill(layout, records, low, min(low + BLOCK, count))
        lawful = read.device - np.uint8(_SPACE) < _PRINTABLE
        if np.count_nonzero(lawful) != np.sum(width):
            odd |= np.count_nonzero(lawful, axis=1) != width
        if odd.any():
            read.device[odd], width[odd], read.time[odd], value[odd] = 0, 1, 0, 1.0
            read.device[odd, 0] = ord("-")
        return read

    def _fill(self, layout: Layout, records: Packed, low: int, high: int) -> None:
        """Compare the records [low, high) with the model, and take their times and values."""
        size = layout.columns.itemsize
        begins = np.maximum(records.starts[low + 1 : high + 1] - size, 0)
        tails = _cut(records, size, begins).view(layout.columns)
        time, value, odd = self.time[low:high], self.value[low:high], self.odd[low:high]
        for place, (mask, content) in enumerate(layout.words):
            word = tails[f"word {place}"]
            odd |= (word if mask == _ALL else word & np.uint64(mask)) != np.uint64(content)
        for place in range(len(layout.names)):
            value[:, place] = tails[f"value {place}"]
        word = tails["time"].copy()
        np.bitwise_and(word, 0x7F, out=time)
        for place in range(1, layout.time_bytes):
            time |= word >> place & 0x7F << 7 * place

    @property
    def strings(self) -> pa.StringViewArray:
        """The ids."""
        count, most = self.device.shape
        views = np.zeros((count, VIEW_BYTES // 4), np.int32)
        views[:, 0] = self.width
        views.view(np.uint8)[:, 4 : 4 + min(most, INLINE_MAX)] = self.device[:, :INLINE_MAX]
        if most > INLINE_MAX:
            long = np.flatnonzero(self.width > INLINE_MAX)
            views[long, 2], views[long, 3] = 0, long * most
        return _strings(views, self.device)


def _cut(records: Packed, size: int, begins: Ints) -> npt.NDArray[np.void]:
    """Pieces of ``size`` bytes that begin there: of consecutive records, and each at the same place in all."""
    if records.stride:
        return np.ndarray((len(begins),), f"V{size}", records.data, int(begins[0]), (records.stride,))
    every: npt.NDArray[np.void] = np.ndarray((len(records.data) - size + 1,), f"V{size}", records.data, 0, (1,))
    return every[begins]


def _ids(records: Packed, width: Ints) -> Bytes:
    """The device ids, of ``width`` bytes each, a row each and with zeros after them."""
    most = int(np.max(width))
    begins = records.starts[:-1] + _HEAD
    last = len(records.data) - most
    ids = _cut(records, most, np.minimum(begins, last)).copy().view(np.uint8).reshape(len(records), most)
    for row in np.flatnonzero((begins > last) & (begins + width <= len(records.data))).tolist():  # short, near the end
        ids[row, : width[row]] = np.frombuffer(records.data, np.uint8, width[row], begins[row])
    if not records.stride:
        ids *= np.arange(most) < width[:, None]
    return ids


def read_alike(records: Packed) -> tuple[Columns, Flags] | None:
    """The columns of ``records``, and which of them are odd: their rows mean nothing.

    None where too many are odd. Rows that are not odd have a lawful device id and lawful metrics, none twice, each a
    double; their times and values may break a rule yet.
    """
    if len(records) < ALIKE_MIN or (layout := _model(records)) is None:
        return None
    read = _Read.by(layout, records)
    if np.count_nonzero(read.odd) > 1 + len(records) // ODD_SHARE:
        return None
    count, width = read.value.shape
    columns = Columns(
        device_id=read.strings,
        ts=read.time,
        starts=np.arange(0, (count + 1) * width, width, dtype=np.int32),
        metric=_repeated(layout.names, 1 << (count - 1).bit_length())[: count * width],
        value=read.value.ravel(),
    )
    return columns, read.odd


def _model(records: Packed) -> Layout | None:
    """The layout of one of the most frequent size."""
    row = 0
    if not records.stride:
        row = int(np.argmax(records.sizes == np.argmax(np.bincount(np.minimum(records.sizes, COLUMNAR_BYTES_MAX + 1)))))
    return Layout.of(records[row]) if records.sizes[row] <= COLUMNAR_BYTES_MAX else None


@lru_cache(maxsize=2)
def _repeated(names: tuple[bytes, ...], times: int) -> pa.StringViewArray:
    """The names one after the other, so many times; kept, since a fleet's batches all need the same."""
    views, place = bytearray(), 0
    for name in names:
        views += len(name).to_bytes(4, "little")
        inline = name if len(name) <= INLINE_MAX else name[:4] + bytes(4) + place.to_bytes(4, "little")
        views += inline.ljust(INLINE_MAX, b"\0")
        place += len(name)
    return _strings(np.tile(np.frombuffer(views, np.uint8), times), np.frombuffer(b"".join(names), np.uint8))


def _strings(views: npt.NDArray[Any], data: Bytes) -> pa.StringViewArray:
    """Strings by Arrow's variable-size binary view layout. ``data`` is UTF-8."""
    buffers = [None, pa.py_buffer(views), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string_view(), views.nbytes // VIEW_BYTES, buffers)
