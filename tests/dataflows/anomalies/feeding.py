"""Series to detectors and back: each series is its rows, a step is whatever rollups share a minute."""

from collections.abc import Sequence
from dataclasses import replace
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
    """Run ``rollups`` from ``state`` on; what was said of rows, by series, in their order.

    What is said of series that are not in a step is no row's; ``watched`` has it.
    """
    said: list[list[tuple[float, ...]]] = [[] for _ in range(count)]
    for step in rollups:
        state, scores = detector.step(state, step)
        assert scores.series[: len(step.series)].tolist() == step.series.tolist(), "one for each row, in their order"
        columns = (part[: len(step.series)] for part in (scores.score, scores.expected, scores.lower, scores.upper))
        for place, *row in zip(step.series.tolist(), *(column.tolist() for column in columns), strict=True):
            said[place].append(tuple(row))
    return state, [Said(*np.array(rows, np.float64).reshape(-1, 4).T) for rows in said]


def watched(detector: Detector, series: Sequence[Series], minutes: int) -> list[list[tuple[int, float]]]:
    """By series: (minute, score) of all that is said while the first ``minutes`` minutes close one after the other."""
    minute = np.concatenate([each.minute for each in series])
    value = np.concatenate([each.value for each in series])
    place = np.repeat(np.arange(len(series)), [len(each.minute) for each in series])
    state, said = blank(detector, len(series)), [[] for _ in series]
    for now in range(minutes):
        rows = np.flatnonzero(minute == now)
        bucket = START_MS + minute[rows] * MINUTE_MS
        step = replace(
            Rollups.of_values(place[rows], bucket, value[rows]), closed_until=START_MS + (now + 1) * MINUTE_MS
        )
        state, scores = detector.step(state, step)
        for one, score in zip(scores.series.tolist(), scores.score.tolist(), strict=True):
            said[one].append((now, score))
    return said


def minutely(value: Floats) -> Series:
    """A series without gaps."""
    return Series(np.arange(len(value)), np.asarray(value, np.float64))
