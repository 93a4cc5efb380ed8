"""The generators do make what they are there for: each hazard occurs in a fair share of a few hundred logs."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from tests.dataflows.windowing.occurring import all_occur, met_by
from tests.oracles import Message, Oracle, Reading, Rules, Tick, identity, without_repeats
from tests.strategies import Log, cases

HAZARDS = {
    "a late reading",
    "a late reading, repeated",
    "a reading repeated in its window",
    "a reading repeated after its window closed",
    "a repetition in the same slice, after its window closed",
    "a repetition on the other side of a cut",
    "one time, two values",
    "one time, both zeros",
    "times out of order",
    "append times that go back",
    "an event ahead of its record, accepted",
    "timestamp_in_future",
    "timestamp_too_old",
    "a negative time",
    "a far time",
    "an offset without a record",
    "a gap at a cut",
    "several metrics at one offset",
    "messages of one shape in a window",
    "messages of several shapes in a window",
    "a tick of each of two workers",
    "a tick of a stranger",
    "a tick ahead of its record",
    "a refused record",
    "closed by ticks",
    "closed by quiet",
    "closed by patience",
    "several windows closed at one record",
    "an empty window closed",
    "a reading at the end of its window, to the millisecond",
    "a slice without records",
    "a slice of one record",
    "an open window at a cut",
    "an empty log",
    "a value that overflows a sum",
}


def hazards(rules: Rules, log: Log, cuts: list[int]) -> Iterator[str]:
    oracle = Oracle(rules).read_all(log.records)
    yield from _of_readings(oracle)
    yield from _of_the_log(rules, log)
    yield from {f"closed by {reason}" for reason in oracle.reasons} | {reason for _, reason in oracle.refused}
    closing = Counter(offset for offset, _ in oracle.closings)
    if any(n > 1 for n in closing.values()):
        yield "several windows closed at one record"
    held = {oracle.bucket(r) + rules.length for r in oracle.on_time}
    if any(end not in held for _, end in oracle.closings):
        yield "an empty window closed"
    edges = [log.start, *cuts, log.end]
    sizes = [sum(low <= r.offset < high for r in log.records) for low, high in pairwise(edges)]
    if 0 in sizes:
        yield "a slice without records"
    if 1 in sizes:
        yield "a slice of one record"
    for cut in cuts:
        before = Oracle(rules).read_all(r for r in log.records if r.offset < cut)
        if before.open():
            yield "an open window at a cut"
        after = {identity(r) for r in oracle.on_time if r.offset >= cut}
        if any(identity(r) in after for r in before.open()):
            yield "a repetition on the other side of a cut"
        if cut > log.start and cut - 1 not in {r.offset for r in log.records}:
            yield "a gap at a cut"
    for low, high in pairwise(edges):
        firsts = {identity(r): r.offset for r in oracle.on_time if low <= r.offset < high}
        if any(identity(r) in firsts and low <= r.offset < high for r in oracle.late):
            yield "a repetition in the same slice, after its window closed"


def _of_readings(oracle: Oracle) -> Iterator[str]:
    if oracle.late:
        yield "a late reading"
    if len(without_repeats(oracle.late)) < len(oracle.late):
        yield "a late reading, repeated"
    if len(without_repeats(oracle.on_time)) < len(oracle.on_time):
        yield "a reading repeated in its window"
    if {identity(r) for r in oracle.on_time} & {identity(r) for r in oracle.late}:
        yield "a reading repeated after its window closed"
    values: dict[tuple[str, str, int], set[str]] = {}
    for r in oracle.on_time:
        values.setdefault((r.device, r.metric, r.event), set()).add(repr(r.value))
    if any(len(several) > 1 for several in values.values()):
        yield "one time, two values"
    if any({"0.0", "-0.0"} <= several for several in values.values()):
        yield "one time, both zeros"
    if any(a.event > b.event for a, b in pairwise(oracle.accepted)):
        yield "times out of order"
    if any(r.event > r.append for r in oracle.accepted):
        yield "an event ahead of its record, accepted"
    if any(r.event < 0 for r in oracle.accepted):
        yield "a negative time"
    if any(r.event > 10**14 for r in oracle.accepted):
        yield "a far time"
    if any((r.event + 1) % oracle.rules.length == 0 for r in oracle.accepted):
        yield "a reading at the end of its window, to the millisecond"
    if any(abs(r.value) > 1e308 for r in oracle.accepted):
        yield "a value that overflows a sum"
    shapes: dict[int, dict[int, list[str]]] = {}
    for r in oracle.on_time:
        shapes.setdefault(oracle.bucket(r), {}).setdefault(r.offset, []).append(r.metric)
    for window in shapes.values():
        distinct = set(map(tuple, window.values()))
        if len(distinct) > 1:
            yield "messages of several shapes in a window"
        elif len(window) > 2 and len(min(distinct)) > 1:
            yield "messages of one shape in a window"
    if any(n > 1 for n in Counter(r.offset for r in oracle.accepted).values()):
        yield "several metrics at one offset"


def _of_the_log(rules: Rules, log: Log) -> Iterator[str]:
    if not log.records:
        yield "an empty log"
    if len(log.records) < log.end - log.start:
        yield "an offset without a record"
    if any(a.append > b.append for a, b in pairwise(log.records)):
        yield "append times that go back"
    ticks = [r for r in log.records if isinstance(r, Tick)]
    if len({t.worker for t in ticks if t.worker in rules.workers}) > 1:
        yield "a tick of each of two workers"
    if any(t.worker not in rules.workers for t in ticks):
        yield "a tick of a stranger"
    if any(t.ts > t.append for t in ticks):
        yield "a tick ahead of its record"
    if any(not isinstance(r, Tick | Message) for r in log.records):
        yield "a refused record"


def test_every_hazard_occurs():
    """In a few hundred logs, and no hazard is listed that nothing makes."""
    all_occur(HAZARDS, met_by(cases(), hazards))


def test_a_reading_is_identified_by_the_bits_of_its_value():
    """Zero and negative zero are two readings, as are two values of one time."""
    one = Reading(0, 0, 0, "a", "t", 0.0)
    assert len(without_repeats([one, one._replace(value=-0.0), one._replace(offset=1)])) == 2
