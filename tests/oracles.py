"""The window core's specification, executable: slow, obvious, plain Python.

It shares no code with the core and none of its ideas: it keeps every record it has seen, answers each
question by looking through all of them, and sums with fractions. It knows no batches, no crashes and no frames.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf, ulp
from struct import pack
from typing import NamedTuple


class Message(NamedTuple):
    """A record that holds readings."""

    offset: int
    append: int
    event: int
    device: str
    readings: tuple[tuple[str, float], ...]


class Tick(NamedTuple):
    """A record by which an ingest worker says how far it is."""

    offset: int
    append: int
    worker: str
    ts: int


class Bad(NamedTuple):
    """A record that the decoder refused."""

    offset: int
    append: int


TINY = Fraction(2) ** -1022  # below this a double loses its digits, and a square its value

Record = Message | Tick | Bad


class Reading(NamedTuple):
    """One value of one metric, and where it was."""

    offset: int
    append: int
    event: int
    device: str
    metric: str
    value: float


@dataclass(frozen=True)
class Rules:
    """The settings that shape windows, in ms, and the ingest workers whose ticks count."""

    length: int = 60_000
    lateness: int = 10_000
    skew: int = 60_000
    quiet: int = 10_000
    patience: int = 300_000
    age: int = 604_800_000
    workers: tuple[str, ...] = ()


@dataclass
class Oracle:
    """Reads records one at a time. ``rules`` may be replaced between two of them."""

    rules: Rules
    closed_until: int | None = None
    accepted: list[Reading] = field(default_factory=list)  # late ones too
    on_time: list[Reading] = field(default_factory=list)
    late: list[Reading] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    ticks: dict[str, int] = field(default_factory=dict)
    closings: list[tuple[int, int]] = field(default_factory=list)  # offset of the record, end of the window
    reasons: set[str] = field(default_factory=set)  # which of the three rules have closed a window
    kinds: Counter[str] = field(default_factory=Counter)

    def change(self, rules: Rules) -> None:
        """From the next record on other rules hold. A worker that is no longer configured is forgotten."""
        self.rules = rules
        self.ticks = {worker: ts for worker, ts in self.ticks.items() if worker in rules.workers}

    def read_all(self, records: Iterable[Record]) -> "Oracle":
        for record in records:
            self.read(record)
        return self

    def read(self, record: Record) -> None:
        self.kinds[type(record).__name__] += 1
        if isinstance(record, Tick) and record.worker in self.rules.workers:
            ts = min(record.ts, record.append)
            self.ticks[record.worker] = max(ts, self.ticks.get(record.worker, ts))
        if isinstance(record, Message):
            self._judge(record)
        while (end := self._next_end()) is not None and (reason := self._closes(end, record.append)):
            self.closed_until = end
            self.closings.append((record.offset, end))
            self.reasons.add(reason)

    def _judge(self, message: Message) -> None:
        if message.event - message.append > self.rules.skew:
            self.refused.append((message.offset, "timestamp_in_future"))
            return
        if message.append - message.event > self.rules.age:
            self.refused.append((message.offset, "timestamp_too_old"))
            return
        for metric, value in message.readings:
            reading = Reading(message.offset, message.append, message.event, message.device, metric, value)
            self.accepted.append(reading)
            is_late = self.closed_until is not None and self.bucket(reading) + self.rules.length <= self.closed_until
            (self.late if is_late else self.on_time).append(reading)

    def bucket(self, reading: Reading) -> int:
        """Start of the window a reading belongs to."""
        return reading.event - reading.event % self.rules.length

    def _next_end(self) -> int | None:
        if self.closed_until is not None:
            return self.closed_until + self.rules.length
        return min((self.bucket(reading) + self.rules.length for reading in self.on_time), default=None)

    def _closes(self, end: int, now: int) -> str | None:
        """The rule by which the window that ends at ``end`` closes at a record appended at ``now``."""
        boundary = end + self.rules.lateness
        if self.ticks and all(ts >= boundary for ts in self.ticks.values()):
            return "ticks"
        beyond = [r for r in self.accepted if min(r.event, r.append) >= boundary]
        if any(now - r.append >= self.rules.patience for r in beyond):
            return "patience"
        within = [r for r in self.accepted if end - self.rules.length <= r.event < end]
        stood = any(now - r.append >= self.rules.quiet for r in beyond)
        if stood and within and all(now - r.append >= self.rules.quiet for r in within):
            return "quiet"
        return None

    def is_open(self, reading: Reading) -> bool:
        return self.closed_until is None or self.bucket(reading) >= self.closed_until

    def rows(self) -> dict[tuple[int, str, str], "Row"]:
        """The rollup of every series in every closed window."""
        return rollups((r for r in self.on_time if not self.is_open(r)), self.rules.length)

    def open(self) -> list[Reading]:
        return [reading for reading in self.on_time if self.is_open(reading)]

    def resume(self, position: int) -> int:
        """The lowest offset that still contributes to an open window."""
        return min((reading.offset for reading in self.open()), default=position)

    def ledger(self, start: int, position: int) -> dict[str, int]:
        """What the ledger must say of the log from ``start`` to ``position``; late duplicates stand among the late."""
        refused = self.kinds["Bad"] + len(self.refused)
        counted = len(without_repeats(r for r in self.on_time if not self.is_open(r)))
        return {
            "messages": self.kinds["Message"] - len(self.refused),
            "ticks": self.kinds["Tick"],
            "refused": refused,
            "gaps": position - start - self.kinds.total(),
            "readings": len(self.accepted),
            "counted": counted,
            "late": len(self.late),
            "duplicates": len(self.on_time) - len(self.open()) - counted,
            "open": len(self.open()),
        }

    def table(self) -> dict[tuple[int, str, str], "Row"]:
        """Every row as the database has it in the end: the late readings are folded in, each identity once.

        A late reading that repeats one that was on time counts again: telling them apart takes the raw archive.
        """
        closed = without_repeats(reading for reading in self.on_time if not self.is_open(reading))
        return _grouped([*closed, *without_repeats(self.late)], self.rules.length)


@dataclass(frozen=True)
class Row:
    """A rollup, exactly: mean and m2 are fractions."""

    count: int
    mean: Fraction
    m2: Fraction
    min: float
    max: float
    first: float
    last: float
    first_ts: int
    last_ts: int
    magnitude: float  # the largest absolute value

    def differences(self, row: Mapping[str, object], slack: int = 1) -> list[str]:
        """The columns in which a row of the core is wrong.

        Count and ends are exact, to the sign of a zero. The mean may be off by 4 ulp of the largest value, m2
        by 10⁻¹² of itself, by what that error of a mean would add, and by what underflows; ``slack`` times that for
        rows that were revised.
        """
        exact = ("count", "min", "max", "first", "last", "first_ts", "last_ts")
        wrong = [name for name in exact if not same_bits(getattr(self, name), row[name])]
        rounding = 4 * Fraction(ulp(self.magnitude)) * slack
        if not _within(row["mean"], self.mean, rounding):
            wrong.append("mean")
        if not _within(row["m2"], self.m2, slack * self.m2 / 10**12 + self.count * (rounding**2 + TINY)):
            wrong.append("m2")
        return wrong


def rollups(readings: Iterable[Reading], length: int) -> dict[tuple[int, str, str], Row]:
    """A plain group by series and window; of identical readings the first by offset counts."""
    return _grouped(without_repeats(sorted(readings, key=lambda r: r.offset)), length)


def _grouped(readings: Iterable[Reading], length: int) -> dict[tuple[int, str, str], Row]:
    groups: dict[tuple[int, str, str], list[Reading]] = {}
    for reading in readings:
        key = (reading.event - reading.event % length, reading.device, reading.metric)
        groups.setdefault(key, []).append(reading)
    return {key: row_of(group) for key, group in groups.items()}


def identity(reading: Reading) -> tuple[str, str, int, bytes]:
    """Two readings are the same if these are: device, metric, event time and bits of the value."""
    return reading.device, reading.metric, reading.event, pack("<d", reading.value)


def without_repeats(readings: Iterable[Reading]) -> list[Reading]:
    """The first reading of each identity, in the order given."""
    seen: dict[tuple[str, str, int, bytes], Reading] = {}
    for reading in readings:
        seen.setdefault(identity(reading), reading)
    return list(seen.values())


def row_of(readings: Sequence[Reading]) -> Row:
    """The rollup of these readings, all of them."""
    ordered = sorted(readings, key=lambda r: (r.event, r.offset))
    values = [Fraction(reading.value) for reading in ordered]
    mean = sum(values) / Fraction(len(values))
    floats = [reading.value for reading in ordered]
    return Row(
        count=len(ordered),
        mean=mean,
        m2=Fraction(sum((value - mean) ** 2 for value in values)),
        min=min(floats, key=_signed),
        max=max(floats, key=_signed),
        first=floats[0],
        last=floats[-1],
        first_ts=ordered[0].event,
        last_ts=ordered[-1].event,
        magnitude=max(map(abs, floats)),
    )


def same_bits(a: object, b: object) -> bool:
    """Equal, and of equal sign where both are zero."""
    return a == b and (not isinstance(a, float) or _signed(a) == _signed(b))  # type: ignore[arg-type]


def _signed(value: float) -> tuple[float, bytes]:
    """Negative zero sorts below zero."""
    return value, b"\x00" if pack(">d", value)[0] & 0x80 else b"\x01"


def _within(found: object, exact: Fraction, tolerance: Fraction) -> bool:
    assert isinstance(found, float)
    if found in (inf, -inf):
        return exact + tolerance > Fraction(1.7976931348623157e308) and found > 0
    return found == found and abs(Fraction(found) - exact) <= tolerance
