"""Logs that make the hazards of a log likely.

A log is made from bytes, six a record, read as choices from small pools: most of what goes wrong in a log of devices
goes wrong at equal times, at edges of windows and at the limits of the settings, and the pools hold those. Bytes are
drawn in one go, which makes thousands of examples cheap, and they shrink towards few records of one honest device.

``test_strategies.py`` and ``test_crash_strategies.py`` in ``tests/dataflows/windowing`` show that each hazard occurs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.oracles import Bad, Message, Record, Rules, Tick

WORKERS = ("ingest-0", "ingest-1")
DEVICES = ("boiler", "a", "B", "é💡")
METRICS = ("t", "humidity", "temperature_celsius")  # the last is too long for Polars to keep inline
VALUES = (1.0, 0.0, -0.0, 1.5, 0.0, 0.1, -2.25, 101_325.01, 1e-300, 1.7e308, -1.7e308, 5e-324, 3.0, 1.0, 7.0, 0.3)
BASES = (1_763_700_000_000, 0, -7_200_000, 59_999, -1, 253_402_300_799_999, 1_763_712_345_678, 30_000)
BYTES_A_RECORD = 6


@dataclass(frozen=True)
class Log:
    """Records of one partition, in order, in [start, end)."""

    records: tuple[Record, ...]
    start: int
    end: int

    def between(self, low: int, high: int) -> "Log":
        return Log(tuple(r for r in self.records if low <= r.offset < high), low, high)


ALL = 10**6  # slices: more than any log is cut into


class Run(NamedTuple):
    """A process that is fed so many slices beyond what refills, has the first of them committed, and dies.

    Its cuts are its own: after a restart a log is not read in the same batches, and one may lie about ``position``.
    """

    fed: int
    committed: int
    cuts: Sequence[int]


def rules(**fixed: Any) -> st.SearchStrategy[Rules]:
    """Settings at and around the values that matter, zero included; ``fixed`` ones are as given."""
    pools: dict[str, Sequence[Any]] = {
        "length": (60_000, 60_000, 300_000, 10_000),
        "lateness": (10_000, 0, 2_500),
        "skew": (60_000, 0, 5_000),
        "quiet": (10_000, 0, 1_000),
        "patience": (300_000, 5_000, 30_000),
        "age": (3_600_000, 100_000, 900_000),
        "workers": ((), WORKERS[:1], WORKERS),
    }
    return st.builds(Rules, **{k: st.just(fixed[k]) if k in fixed else st.sampled_from(v) for k, v in pools.items()})


def logs(limits: Rules, records_max: int = 40) -> st.SearchStrategy[Log]:
    """Logs whose times are near the edges of ``limits``."""
    return choices(records_max).map(lambda drawn: log_of(drawn, limits))


def choices(records_max: int) -> st.SearchStrategy[bytes]:
    """Bytes for up to so many records. The length is drawn first: left to itself, ``binary`` draws about one record."""
    sizes = st.integers(0, records_max).map(lambda records: records * BYTES_A_RECORD + 1)
    return sizes.flatmap(lambda size: st.binary(min_size=size, max_size=size))


def records_of(
    drawn: bytes, limits: Rules, now: int, offset: int, past: Sequence[Record] = (), uniform: bool = False
) -> list[Record]:
    """Records appended from ``offset`` on and about the time ``now``; some repeat one of ``past``.

    Where they are ``uniform`` all messages name all metrics, as those of a fleet of one kind of device do.
    """
    made: list[Record] = []
    for i in range(0, len(drawn) - BYTES_A_RECORD + 1, BYTES_A_RECORD):
        kind, who, append, event, value, place = drawn[i : i + BYTES_A_RECORD]
        now += _pick(_strides(limits), append)
        offset += 1 if place < 224 else place - 220  # a gap: transaction markers, compaction
        repeatable = [r for r in (*past, *made) if isinstance(r, Message)]
        if kind < 160 or (kind < 200 and not repeatable):
            shape = 7 if uniform else (1 + who // 4) % 8
            made.append(_message(limits, offset, now, who, event, value, shape))
        elif kind < 200:
            again = repeatable[-1 - value % len(repeatable)]._replace(offset=offset, append=now)
            made.append(again if who < 192 else _negated(again))
        elif kind < 232:
            worker = (*WORKERS, *WORKERS, "stranger")[who % 5]
            made.append(Tick(offset, now, worker, now + _pick(_reaches(limits, now), event)))
        else:
            made.append(Bad(offset, now))
    return made


def log_of(drawn: bytes, limits: Rules) -> Log:
    """The log that these bytes stand for."""
    first = drawn[0] if drawn else 0
    start = first >> 3
    records = records_of(drawn[1:], limits, BASES[first & 7], start - 1, uniform=bool(first & 0x20))
    end = records[-1].offset + 1 if records else start
    return Log(tuple(records), start, end + (first >> 6))


def _message(limits: Rules, offset: int, now: int, who: int, event: int, value: int, shape: int) -> Message:
    time = now + _pick(_leads(limits, now), event)
    grid = (1, 1, 1_000, 10_000)[event >> 6]  # a coarse clock gives several readings one time
    chosen = [m for i, m in enumerate(METRICS) if shape >> i & 1] or list(METRICS[:1])
    values = [_pick(VALUES, value + 3 * i) for i in range(len(chosen))]
    return Message(offset, now, time // grid * grid, DEVICES[who % 4], tuple(zip(chosen, values, strict=True)))


def _negated(message: Message) -> Message:
    """The other value of one time, and of a zero the other zero."""
    return message._replace(readings=tuple((metric, -value) for metric, value in message.readings))


def _strides(limits: Rules) -> Sequence[int]:
    """By how much a record's append time differs from the one before."""
    small = (0, 1, 500, 1_000, 3_000, 10_000, 20_000, limits.length)
    edges = [limits.quiet + d for d in (-1, 0, 1)] + [limits.patience + d for d in (-1, 0, 1)]
    return (*small, *small, *edges, -3_000, -limits.quiet, 7 * limits.length)


def _leads(limits: Rules, now: int) -> Sequence[int]:
    """By how much a device's clock, or a tick, is ahead of the append time."""
    edge = now // limits.length * limits.length - now  # this takes one to the start of the window
    boundary = edge + limits.lateness
    honest = (0, -1, -500, -2_000, 0, -limits.lateness, -limits.lateness - 1)
    edges = (edge, edge - 1, boundary, boundary - 1, edge - limits.length, edge + limits.length)
    behind = (-limits.length, -limits.length - limits.lateness, -3 * limits.length, -240_000)
    wrong = (limits.skew, limits.skew + 1, limits.skew // 2, 1_000, -limits.age, -limits.age - 1, -(10**13), 10**13)
    return (*honest, *edges, *honest, *behind, *wrong)


def _reaches(limits: Rules, now: int) -> Sequence[int]:
    """By how much a tick's time is ahead of its append time; nothing at all is the usual."""
    boundary = (now - limits.lateness) // limits.length * limits.length + limits.lateness - now
    return (
        0,
        boundary,
        -1,
        boundary - 1,
        boundary - limits.length,
        0,
        boundary + 1,
        -2_000,
        1_000,
        -limits.length,
        40 * limits.length,
    )


def _pick(pool: Sequence[Any], choice: int) -> Any:
    return pool[choice % len(pool)]


def cuts(log: Log, cuts_max: int = 12) -> st.SearchStrategy[list[int]]:
    """Where a log is cut into slices: one-row and empty slices among them, and cuts in gaps."""
    offsets = st.integers(log.start, log.end)
    return st.integers(0, cuts_max).flatmap(lambda count: st.lists(offsets, min_size=count, max_size=count)).map(sorted)


@st.composite
def cases(draw: st.DrawFn, /, records_max: int = 40, **fixed: Any) -> tuple[Rules, Log, list[int]]:
    """Rules, a log near their edges, and a cutting of it."""
    limits = draw(rules(**fixed))
    log = draw(logs(limits, records_max))
    return limits, log, draw(cuts(log))


def copies(log: Log) -> list[int]:
    """Offsets of messages that say what an earlier one has said."""
    said, again = set(), []
    for message in log.records:
        if isinstance(message, Message):
            if message[2:] in said:
                again.append(message.offset)
            said.add(message[2:])
    return again


def runs(log: Log) -> st.SearchStrategy[Run]:
    """A process that dies, before or after a commit; 0 slices fed is one that dies at its start.

    Where the log repeats a reading, half of them die between its copies.
    """
    anywhere = st.builds(Run, st.integers(0, 4), st.integers(0, 4), cuts(log, 6))
    again = copies(log)
    if not again:
        return anywhere
    return st.one_of(anywhere, st.sampled_from(again).map(lambda offset: Run(1, 1, [offset])))


@st.composite
def crashes(draw: st.DrawFn, /) -> tuple[Rules, Log, list[int], list[Run]]:
    """A case, and processes that die over it one after the other before one reads it to its end."""
    limits, log, cutting = draw(cases())
    return limits, log, cutting, draw(st.lists(runs(log), max_size=5))


@st.composite
def changes(draw: st.DrawFn, /) -> tuple[list[tuple[Rules, Run]], Log]:
    """A log, and processes with different settings over it, of which the last reads it to its end."""
    first = draw(st.one_of(rules(), rules(workers=WORKERS[:1])))
    skews, ages = st.sampled_from((60_000, 0, 5_000)), st.sampled_from((3_600_000, 100_000))
    workers = st.sampled_from((first.workers, (), WORKERS[:1], WORKERS))
    judging = st.builds(replace, st.just(first), skew=skews, age=ages, workers=workers)
    variants = [first, draw(judging), draw(st.one_of(judging, rules(length=first.length)))]
    log = draw(logs(draw(st.sampled_from(variants))))
    living = st.builds(Run, st.just(2), st.integers(1, 2), cuts(log, 6))  # they commit, and get on slowly
    some = st.tuples(st.sampled_from(variants), st.one_of(living, living, runs(log)))
    last = Run(ALL, ALL, draw(cuts(log)))
    return [*draw(st.lists(some, max_size=5)), (draw(st.sampled_from(variants)), last)], log
