"""Logs of ``aggregates.minute`` that make the hazards of flags likely, and records as the log has them.

Hazards: values that leave a band, stay away and come back; devices that go silent one by one and all at once; minutes
without a closing; rollups and closings that come again, whole stretches of them at once; late revisions of young and
of old minutes, of minutes without a rollup, of equal and of lower revision; and rollups of years to come.
``test_flag_laws.py`` asserts that each does occur.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dataflows.anomalies.protocol import Array, Field, Rollups, Scores, State
from dataflows.anomalies.silence import Silence
from dataflows.anomalies.threshold import Threshold
from dataflows.anomalies.watch import Watch
from schemas.log import LogBatch
from schemas.progress import Anchor
from schemas.rollup_pb2 import Rollup
from tests.flag_oracle import MINUTE, Closed, Rolled

START = 1_763_700_000_000 // MINUTE * MINUTE
DEVICES = ("boiler", "a/b", "é💡", "pump", "press")
METRICS = ("t", "running")
VALUES = (0.0, 1.0, 1.0, 1.0, 5.0, 9.0, 10.0, 12.0, 25.0)
Record = Rolled | Closed


@dataclass(frozen=True)
class Jump:
    """A detector with a state: the score is the distance from the value before, and learned bands count late."""

    name: str = "jump"
    params_version: str = "1"
    flag_at: float = 0.5
    unit_free: bool = True

    @property
    def fields(self) -> Mapping[str, Field]:
        return {"rows": Field((), np.int64), "past": Field((2,), np.float64)}

    def step(self, state: State, rollups: Rollups) -> tuple[State, Scores]:
        after: dict[str, Array] = {name: array.copy() for name, array in state.items()}
        rows, past = state["rows"][rollups.series], state["past"][:, rollups.series]
        expected = np.where(rows > 1, past.mean(axis=0), np.nan)
        score = np.nan_to_num(np.minimum(np.abs(rollups.mean - expected) / 10, 1.0))
        after["rows"][rollups.series] = rows + 1
        after["past"][:, rollups.series] = np.stack([past[1], rollups.mean])
        return after, Scores(rollups.series, score, expected, expected - 5, expected + 5)


WATCHES: Sequence[Watch] = (
    Watch("hot", Threshold("above", 8.0, 4.0), metrics=("t",), clear_at=0.25, for_mins=2, close_after_mins=3),
    Watch("jump", Jump(), flag_at=0.4, clear_at=0.2, close_after_mins=2, cool_down_mins=4),
    Watch("few", Threshold("below", 2.0), subject="device", devices=("[!p]*",), close_after_mins=1, severity="info"),
    Watch("quiet", Silence(2, 3), subject="device", close_after_mins=2, outage_share=0.5, severity="critical"),
)


@st.composite
def logs(draw: st.DrawFn, windows_max: int = 70) -> list[Record]:
    """A log of one partition, in order, offsets with gaps between them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    windows = draw(st.integers(1, windows_max))
    weights = draw(st.sampled_from([(0.05, 0.02, 0.02), (0.0, 0.0, 0.0), (0.3, 0.2, 0.1)]))
    made: list[Record] = []
    level = {(device, metric): 1.0 for device in DEVICES for metric in METRICS}
    gone = dict.fromkeys(DEVICES, 0)
    for nth in range(windows):
        if rng.random() < 0.03:
            gone |= {device: nth + int(rng.integers(1, 9)) for device in DEVICES}  # all at once
        bucket = START + nth * MINUTE
        for device in DEVICES:
            if rng.random() < 0.04:
                gone[device] = nth + int(rng.integers(1, 12))
            for metric in METRICS:
                if gone[device] > nth or rng.random() < 0.02:
                    continue
                if rng.random() < 0.15:
                    level[device, metric] = float(rng.choice(VALUES))
                made.append(Rolled(0, bucket, device, metric, level[device, metric], int(rng.integers(1, 4))))
        if rng.random() < weights[2]:
            made.append(Rolled(0, bucket + int(rng.choice([2, 59, 61, 10**6])) * MINUTE, "boiler", "t", 25.0))
        if rng.random() > weights[2]:
            made.append(Closed(0, bucket + MINUTE))
        made += _later(made, rng, weights)
    offset, numbered = 0, []
    for one in made:
        offset += 1 + int(rng.random() < 0.1)
        numbered.append(one._replace(offset=offset))
    return numbered


def _later(made: Sequence[Record], rng: np.random.Generator, weights: tuple[float, float, float]) -> list[Record]:
    """Revisions of what was said, and stretches that are said again."""
    late: list[Record] = []
    rolled = [one for one in made[-150:] if isinstance(one, Rolled) and one.bucket <= made[-1][1]]
    while rolled and rng.random() < weights[0]:
        one = rolled[int(rng.integers(len(rolled)))]
        late.append(one._replace(value=float(rng.choice(VALUES)), revision=one.revision + int(rng.integers(0, 3))))
    if rng.random() < weights[1]:
        late += made[-int(rng.integers(1, 40)) :]
    return late


def batch(records: Sequence[Record], start: int, end: int, partition: int = 0) -> LogBatch:
    """The records of [start, end), as the source hands them on."""
    mine = [one for one in records if start <= one.offset < end]
    headers = {at: (("closed", b"%d" % one.end),) for at, one in enumerate(mine) if isinstance(one, Closed)}
    return LogBatch(
        topic="aggregates.minute",
        partition=partition,
        start=start,
        end=end,
        offsets=[one.offset for one in mine],
        append_times=[START + one.offset for one in mine],
        values=[encoded(one) for one in mine],
        headers=headers,
        anchor=Anchor(mine[-1].offset, 0, 0) if mine else None,
    )


def encoded(one: Record) -> bytes:
    if isinstance(one, Closed):
        return Rollup(bucket=one.end - MINUTE, length_ms=MINUTE).SerializeToString()
    value: dict[str, Any] = dict.fromkeys(("mean", "min", "max", "first", "last"), one.value)
    times = {"first_ts": one.bucket, "last_ts": one.bucket}
    names = {"device_id": one.device, "metric": one.metric, "revision": one.revision, "count": one.count}
    return Rollup(bucket=one.bucket, length_ms=MINUTE, **names, **value, **times).SerializeToString()


def changed(watches: Sequence[Watch], name: str, **differs: Any) -> list[Watch]:
    """The watches, of which one differs."""
    return [replace(watch, **differs) if watch.name == name else watch for watch in watches]
