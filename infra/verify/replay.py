"""The deep check: a partition's log read again, record by record, in plain Python, and the rows it must have made.

Shares no code with decoders, core or store: Google's protobuf parser, dicts and ``math``. Rows are compared exactly in
count, min, max, first, last and their times, and to rounding in mean and m2.

Readings are judged by the settings of today. Where lateness, quiet, patience or skew were changed within the range, a
repeated reading that was on time by one and late by the other differs by one in its count: begin the range after it.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from struct import pack
from typing import NamedTuple

from google.protobuf.message import DecodeError

from schemas.settings import Settings
from schemas.telemetry_pb2 import Telemetry

NEVER = -(2**62)
TIME_MIN_MS, TIME_MAX_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999

Key = tuple[str, str, int]  # device, metric, bucket (ms)


class Record(NamedTuple):
    """A record as the log has it. ``tick`` is the ingest worker that it is a tick of, or None."""

    offset: int
    append_ms: int
    value: bytes
    tick: str | None


class Row(NamedTuple):
    """A rollup."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody asks
    mean: float
    m2: float
    min: float
    max: float
    first: float
    last: float
    first_ts: int
    last_ts: int


@dataclass
class _Sums:
    """A rollup as it grows, in the order of the log."""

    values: list[float] = field(default_factory=list)
    first: tuple[int, float] = (2**62, 0.0)
    last: tuple[int, float] = (NEVER, 0.0)
    offsets: tuple[int, int] = (2**62, -1)
    unsure: set[str] = field(default_factory=set)  # columns that the log does not decide

    def add(self, offset: int, ts: int, value: float) -> None:
        self.values.append(value)
        if ts < self.first[0]:
            self.first = (ts, value)
        if ts >= self.last[0]:
            self.last = (ts, value)
        self.offsets = (min(self.offsets[0], offset), max(self.offsets[1], offset))

    def join(self, other: "_Sums") -> None:
        """Take in what another partition has of the row. Of equal times no partition's reading is the earlier."""
        for name, mine, theirs in (("first", self.first, other.first), ("last", self.last, other.last)):
            if mine[0] == theirs[0] and pack("<d", mine[1]) != pack("<d", theirs[1]):
                self.unsure.add(name)
        self.unsure |= other.unsure
        self.values += other.values
        self.first = min(self.first, other.first, key=lambda one: one[0])
        self.last = max(self.last, other.last, key=lambda one: one[0])
        self.offsets = (min(self.offsets[0], other.offsets[0]), max(self.offsets[1], other.offsets[1]))

    def row(self) -> Row:
        count = len(self.values)
        mean = math.fsum(value / count for value in self.values)
        m2 = math.fsum((value - mean) ** 2 for value in self.values)
        (first_ts, first), (last_ts, last) = self.first, self.last
        return Row(count, mean, m2, min(self.values), max(self.values), first, last, first_ts, last_ts)


class Told(NamedTuple):
    """Late readings, by offset and metric: those that were counted, and those that wait for the raw archive."""

    counted: set[tuple[int, str]]
    waiting: set[tuple[int, str]]


@dataclass
class Replay:
    """Reads one partition's records in order. ``rows`` are those of closed windows, late readings in them.

    Where an archive ran, ``told`` says what became of late readings. It is believed of copies alone: one may have been
    told apart, or counted before the archive began. A late reading without a copy before it counts in any case.
    """

    settings: Settings
    told: Told | None = None
    rows: dict[Key, _Sums] = field(default_factory=dict)
    closed_until: int | None = None
    _open: dict[int, dict[tuple[str, str, int, bytes], tuple[int, float]]] = field(default_factory=dict)
    _newest_append: dict[int, int] = field(default_factory=dict)  # window → latest append among its readings
    _beyond: dict[int, int] = field(default_factory=dict)  # window of min(event, append) − lateness → earliest append
    _ticks: dict[str, int] = field(default_factory=dict)
    late: set[tuple[str, str, int, bytes]] = field(default_factory=set)  # of all partitions: each is kept once
    _seen: set[int] = field(default_factory=set)  # hashes of identities, where copies are told apart

    def __post_init__(self) -> None:
        windows = self.settings.windows
        self._length = windows.length_secs * 1000
        self._lateness = round(windows.allowed_lateness_secs * 1000)
        self._quiet = round(windows.quiet_secs * 1000)
        self._patience = round(windows.patience_secs * 1000)
        self._skew = round(windows.clock_skew_max_secs * 1000)
        self._age = round(windows.event_age_max_secs * 1000)
        self._workers = set(self.settings.mqtt.workers)

    def read(self, record: Record) -> None:
        if record.tick is not None:
            self._hear(record)
        elif (message := _parsed(record.value)) is not None:
            self._judge(record, message)
        while (end := self._next_end()) is not None and self._closes(end, record.append_ms):
            self._close(end)

    def _hear(self, record: Record) -> None:
        message = _parsed(record.value)
        if message is not None and record.tick in self._workers and not message.metrics:
            ts = min(message.ts, record.append_ms)
            self._ticks[record.tick] = max(ts, self._ticks.get(record.tick, ts))

    def _judge(self, record: Record, message: Telemetry) -> None:
        ts, append = message.ts, record.append_ms
        metrics = good_metrics(message, self.settings.decoding.metrics_max)
        if not metrics or ts - append > self._skew or append - ts > self._age:
            return
        window = ts - ts % self._length
        is_late = self.closed_until is not None and window + self._length <= self.closed_until
        for name, value in metrics.items():
            identity = (message.device_id, name, ts, pack("<d", value))
            if not is_late:
                self._open.setdefault(window, {}).setdefault(identity, (record.offset, value))
            elif identity not in self.late and self._counts(record.offset, name, hash(identity)):
                self.late.add(identity)
                sums = self.rows.setdefault((message.device_id, name, window), _Sums())
                sums.add(record.offset, ts, value)
            if self.told is not None:
                self._seen.add(hash(identity))
        if not is_late:
            self._newest_append[window] = max(append, self._newest_append.get(window, append))
        reached = min(ts, append) - self._lateness
        boundary = reached - reached % self._length  # windows that end at or before it have a reading beyond theirs
        self._beyond[boundary] = min(append, self._beyond.get(boundary, append))

    def _counts(self, offset: int, metric: str, identity: int) -> bool:
        """Whether a late reading is in its row by now."""
        if self.told is None:
            return True
        place = (offset, metric)
        return place not in self.told.waiting and (identity not in self._seen or place in self.told.counted)

    def _next_end(self) -> int | None:
        if self.closed_until is not None:
            return self.closed_until + self._length
        return min(self._open) + self._length if self._open else None

    def _closes(self, end: int, now: int) -> bool:
        if self._ticks and min(self._ticks.values()) >= end + self._lateness:
            return True
        beyond = min((append for boundary, append in self._beyond.items() if boundary >= end), default=None)
        if beyond is None:
            return False
        if now - beyond >= self._patience:
            return True
        newest = self._newest_append.get(end - self._length)
        return newest is not None and now - max(newest, beyond) >= self._quiet

    def _close(self, end: int) -> None:
        window = end - self._length
        readings = self._open.pop(window, {})
        for (device_id, name, ts, _), (offset, value) in sorted(
            readings.items(), key=lambda item: (item[0][2], item[1][0])
        ):
            self.rows.setdefault((device_id, name, window), _Sums()).add(offset, ts, value)
        self._newest_append.pop(window, None)
        self._beyond = {boundary: append for boundary, append in self._beyond.items() if boundary > end}
        self.closed_until = end


def join(rows: MutableMapping[Key, _Sums], more: Mapping[Key, _Sums]) -> None:
    """Add a partition's rows to those of others; where one device is in two partitions its rows are combined."""
    for key, sums in more.items():
        if key in rows:
            rows[key].join(sums)
        else:
            rows[key] = sums


def good_metrics(message: Telemetry, metrics_max: int) -> dict[str, float]:
    """The metrics of a message that count, by the contract: none if its names or its number are wrong."""
    if not _good_name(message.device_id) or not TIME_MIN_MS <= message.ts <= TIME_MAX_MS:
        return {}
    if len(message.metrics) > metrics_max:
        return {}
    return {name: value for name, value in message.metrics.items() if _good_name(name) and math.isfinite(value)}


def _good_name(name: str) -> bool:
    if not 1 <= len(name.encode()) <= 256:
        return False
    return not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name)


def _parsed(value: bytes) -> Telemetry | None:
    try:
        return Telemetry.FromString(value)
    except DecodeError:
        return None


def differences(
    expected: Mapping[Key, _Sums], table: Iterable[tuple[Key, Row]], since_ms: int
) -> Iterator[tuple[Key, str, tuple[int, int] | None]]:
    """Rows that differ: their key, how, and the offsets of their readings where those are known."""
    left = {key for key in expected if key[2] >= since_ms}
    for key, row in table:
        if key[2] < since_ms:
            continue
        if key not in expected:
            yield key, f"a row of {row.count} readings that the log does not explain", None
            continue
        left.discard(key)
        if wrong := _wrong(expected[key].row(), row, expected[key].unsure):
            yield key, wrong, expected[key].offsets
    for key in sorted(left):
        yield key, f"no row, but the log has {len(expected[key].values)} readings for it", expected[key].offsets


def _wrong(expected: Row, found: Row, unsure: Collection[str] = ()) -> str:
    largest = max(abs(expected.min), abs(expected.max))
    wrong = []
    for name, mine, theirs in zip(Row._fields, expected, found, strict=True):
        slack = {"mean": 1e-12 * largest, "m2": 1e-9 * expected.m2 + 1e-22 * expected.count * largest**2}.get(name, 0.0)
        if name not in unsure and not (mine == theirs or abs(mine - theirs) <= slack):
            wrong.append(f"{name} is {theirs!r}, the log says {mine!r}")
    return "; ".join(wrong)


def offsets_of(keys: Sequence[tuple[int, int] | None]) -> tuple[int | None, int | None]:
    """The range that holds all of some rows' offsets."""
    known = [one for one in keys if one is not None]
    return (min(one[0] for one in known), max(one[1] for one in known)) if known else (None, None)
