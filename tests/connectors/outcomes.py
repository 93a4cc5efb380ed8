"""Outcomes as the window core hands them to a sink, drawn at random, and what must stand in the tables after them.

Hazards made likely: late readings of rows that exist, of rows that do not, of windows closed by the very same slice,
repeated within a slice and across slices; values that are equal and yet two readings (0.0 and -0.0); one time with
several values.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl
from hypothesis import strategies as st

from schemas import aggregates
from schemas.aggregates import ROLLUPS
from schemas.frames import LATE
from schemas.log import Outcome, Refused
from schemas.progress import Anchor, Counts, Judged, Progress

LENGTH_MS = 60_000
FIRST_BUCKET = 1_763_700_000_000 // LENGTH_MS * LENGTH_MS


@dataclass(frozen=True)
class Reading:
    """One value; ``late`` says whether its window had closed before its record."""

    offset: int
    device_id: str
    metric: str
    event_time: int
    value: float
    late: bool

    @property
    def bucket(self) -> int:
        return self.event_time // LENGTH_MS * LENGTH_MS

    @property
    def identity(self) -> tuple[str, str, int, bytes]:
        return self.device_id, self.metric, self.event_time, struct.pack(">d", self.value)


@dataclass(frozen=True)
class Step:
    """One slice: the window it closes, the on-time readings of that window, and late readings."""

    end: int  # next offset after the slice
    closes: int  # bucket
    on_time: tuple[Reading, ...]
    late: tuple[Reading, ...]
    refused: int


devices = st.sampled_from(["boiler-7", "kettle", "🌡", "x" * 256])
metrics = st.sampled_from(["temperature", "running"])
values = st.sampled_from([0.0, -0.0, 1.0, 21.5, 1.7e308, -1e-300]) | st.floats(-1e6, 1e6)
moments = st.sampled_from([0, 1, 30_000, LENGTH_MS - 1])  # within the window: ties are the rule


@st.composite
def steps(draw: st.DrawFn, most: int = 6) -> list[Step]:
    """A log of slices, each of which closes the next window."""
    made: list[Step] = []
    offset = 0
    for i in range(draw(st.integers(1, most))):
        closes = FIRST_BUCKET + i * LENGTH_MS

        def reading(late: bool, up_to: int, at: int) -> Reading:
            bucket = (
                FIRST_BUCKET + draw(st.integers(0, up_to)) * LENGTH_MS if late else FIRST_BUCKET + up_to * LENGTH_MS
            )
            return Reading(at, draw(devices), draw(metrics), bucket + draw(moments), draw(values), late)

        on_time = []
        for _ in range(draw(st.integers(0, 5))):
            on_time.append(reading(False, i, offset))
            offset += 1
        late: list[Reading] = []
        for _ in range(draw(st.integers(0, 5))):
            earlier = [r for step in made for r in step.late] + late
            if earlier and draw(st.booleans()):  # again, or its twin: the same but for the sign
                echo = draw(st.sampled_from(earlier))
                late.append(replace(echo, offset=offset, value=draw(st.sampled_from([1, -1])) * echo.value))
            else:
                late.append(reading(True, i, offset))
            offset += 1
        refused = draw(st.integers(0, 2))
        offset += refused + 1  # and one record that was a tick
        made.append(Step(offset, closes, _once(on_time), tuple(late), refused))
    return made


def _once(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """The core has taken out repetitions within a window before it closes."""
    return tuple({reading.identity: reading for reading in reversed(readings)}.values())[::-1]


def outcome(partition: int, before: int, step: Step) -> Outcome:
    """The step as the core would hand it on; ``before`` is the offset the slice began at."""
    groups: dict[tuple[str, str], list[Reading]] = {}
    for reading in sorted(step.on_time, key=lambda r: (r.event_time, r.offset)):
        groups.setdefault((reading.device_id, reading.metric), []).append(reading)
    rows = []
    for (device_id, metric), group in sorted(groups.items()):
        partial = aggregates.partial(group[0].event_time, group[0].value)
        for reading in group[1:]:
            partial = aggregates.combine(partial, aggregates.partial(reading.event_time, reading.value))
        rows.append({"bucket": step.closes, "device_id": device_id, "metric": metric, **partial})
    late = [
        {
            "offset": r.offset,
            "append_time": step.closes + LENGTH_MS,
            "event_time": r.event_time,
            "bucket": r.bucket,
            "device_id": r.device_id,
            "metric": r.metric,
            "value": r.value,
        }
        for r in step.late
    ]
    readings = len(step.on_time) + len(step.late)
    used = readings + 1 + step.refused
    return Outcome(
        partition=partition,
        rollups=pl.DataFrame(rows, schema=ROLLUPS),
        late=pl.DataFrame(late, schema=LATE),
        closed=[step.closes + LENGTH_MS],
        refused=[
            Refused(step.end - 1 - i, step.closes, "not_a_number", 'temperature is "hot"', b"\xff{}")
            for i in range(step.refused)
        ],
        counts=Counts(
            messages=readings,
            ticks=1,
            refused=step.refused,
            gaps=step.end - before - used,
            readings=readings,
            counted=len(step.on_time),
            late=len(step.late),
        ),
        progress=Progress(
            position=step.end,
            resume=before,
            start=0,
            closed_until=step.closes + LENGTH_MS,
            ticks={"ionwax-ingest-0": step.closes + LENGTH_MS, "é": 5},
            judged=[Judged(0, 60_000, 604_800_000), Judged(7, 1, 2)],
            anchor=Anchor(step.end - 1, step.closes, 2**32 - 1),
        ),
    )


def outcomes(made: Sequence[Step], partition: int = 0) -> list[Outcome]:
    ends = [0, *(step.end for step in made)]
    return [outcome(partition, before, step) for before, step in zip(ends, made, strict=False)]


def without_rows(item: Outcome) -> Outcome:
    """The same offsets with nothing in them but ticks, as most slices are."""
    ticks = replace(Counts(), ticks=item.counts.offsets)
    return replace(item, rollups=item.rollups.clear(), late=item.late.clear(), closed=[], refused=[], counts=ticks)


@dataclass(frozen=True)
class Expected:
    """A row by direct grouping of the readings themselves."""

    count: int
    mean: float
    m2: float
    min: float
    max: float
    first: float
    last: float
    first_ts: int
    last_ts: int
    revision: int


def grouped(made: Sequence[Step]) -> dict[tuple[str, str, int], Expected]:
    """The oracle: every reading once, the late ones by identity, grouped by series and window."""
    late = {}
    for step in made:
        for reading in step.late:
            late.setdefault(reading.identity, reading)
    groups: dict[tuple[str, str, int], list[Reading]] = {}
    for reading in [r for step in made for r in step.on_time] + list(late.values()):
        groups.setdefault((reading.device_id, reading.metric, reading.bucket), []).append(reading)
    return {key: _expected(group) for key, group in groups.items()}


def _expected(group: Sequence[Reading]) -> Expected:
    ordered = sorted(group, key=lambda r: (r.event_time, r.offset))
    numbers = [r.value for r in ordered]
    scale = max(*map(abs, numbers), 1.0)
    mean = math.fsum(n / scale for n in numbers) / len(numbers)
    m2 = math.fsum((n / scale - mean) ** 2 for n in numbers)
    return Expected(
        count=len(numbers),
        mean=mean * scale,
        m2=m2 * scale * scale if scale < 1e150 else math.inf if m2 > 1e-9 else 0.0,
        min=min(numbers),
        max=max(numbers),
        first=numbers[0],
        last=numbers[-1],
        first_ts=ordered[0].event_time,
        last_ts=ordered[-1].event_time,
        revision=sum(r.late for r in group),
    )
