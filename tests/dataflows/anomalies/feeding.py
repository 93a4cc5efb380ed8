"""Series to detectors and back: each series is its rows, a step is whatever rollups share a minute."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dataflows.anomalies.protocol import Detector, Floats, Ints, Rollups, State, blank

MINUTE_MS = 60_000
START_MS = 1_763_700_000_000 // MINUTE_MS * MINUTE_MS


class Series(NamedTuple):
    """Rows of one series: minutes since ``START_MS``, ascending, and values."""

    minute: Ints
    value: Floats


class Said(NamedTuple):
    """What was said of a series' rows."""

    score: Floats
    expected: Floats
    lower: Floats
    upper: Floats


def steps(series: Sequence[Series]) -> list[Rollups]:
    """One step a minute in which any series has a rollup."""
    minute = np.concatenate([each.minute for each in series])
    value = np.concatenate([each.value for each in series])
    place = np.repeat(np.arange(len(series)), [len(each.minute) for each in series])
    order = np.argsort(minute, kind="stable")
    cuts = np.flatnonzero(np.diff(minute[order])) + 1
    return [
        Rollups.of_values(place[rows], START_MS + minute[rows] * MINUTE_MS, value[rows])
        for rows in np.split(order, cuts)
        if len(rows)
    ]


def feed(detector: Detector, series: Sequence[Series]) -> list[Said]:
    """What ``detector`` says of every row, the series side by side."""
    return judge(detector, blank(detector, len(series)), steps(series), len(series))[1]


def judge(detector: Detector, state: State, rollups: Sequence[Rollups], count: int) -> tuple[State, list[Said]]:
    """Run ``rollups`` from ``state`` on; what was said, by series, in the order of its rows."""
    said: list[list[tuple[float, ...]]] = [[] for _ in range(count)]
    for step in rollups:
        state, scores = detector.step(state, step)
        columns = (scores.score, scores.expected, scores.lower, scores.upper)
        for place, *row in zip(scores.series.tolist(), *(column.tolist() for column in columns), strict=True):
            said[place].append(tuple(row))
    return state, [Said(*np.array(rows, np.float64).reshape(-1, 4).T) for rows in said]


def minutely(value: Floats) -> Series:
    """A series without gaps."""
    return Series(np.arange(len(value)), np.asarray(value, np.float64))
