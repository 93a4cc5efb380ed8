"""The statistical detector: a rollup is news as far as it deviates like nothing its series has shown.

Six deviations are watched: of the value from its pair of hours in the week, from its level, and from the nearest value
the series has known; and, over some sixteen rows, of its movement from its usual movement, of its misfit with the hour
of the week from its usual misfit, and of its mean from the half hour of the day. Each is compared with the largest that
the series remembers (``extremes``); what they say is added up, on a log scale. One episode is told once: after a high
score only a higher one, or a later one, comes through (``onset``).

Rule: everything is learned by itself, row by row, with bounded steps, so that an anomaly seen moves little and a
lasting change is followed. Rows are the clock of all but the season: missing minutes are no rows.

Guarantee: no score depends on the unit or its zero, on other series, or on a later row. The parameters below are
one setting for all series, chosen on a plateau (DECISIONS.md has the ablations).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dataflows.anomalies import extremes, onset, season, values
from dataflows.anomalies.protocol import Array, Field, Floats, Ints, Rollups, Scores, State

LEVEL_ROWS: Final = 1024
CLIP: Final = 12.0  # times the spread: the most that one row can teach the level
HOUR_CLIP: Final = 4.0  # and its hour
FLOOR: Final = 0.05  # of the spread: deviations below are no news
BRIEF_ROWS: Final = (16, 8, 16)  # the recent past of movement, misfit and mean
USUAL_ROWS: Final = 512
WARM_ROWS: Final = 250  # until then scores are held down in proportion
BAND: Final = 6.0  # mean absolute misfits to either side: nearly five standard deviations of normal noise
VALUE_MAX: Final = 1e300  # beyond, differences would overflow
PARTS: Final = 6
_SCORE_MAX: Final = PARTS * float(np.log(extremes.SURPRISE_MAX))
_CHUNK_SERIES: Final = 8192  # what a step holds in a processor's cache at once

_FIELDS: Final = {
    "rows": Field((), np.float64),
    "anchor": Field((), np.float64),  # the first value: all else is relative to it, so that large offsets cost nothing
    "previous": Field((), np.float64),
    "level": Field((), np.float64),
    "spread": Field((), np.float64),  # mean absolute deviation from the level
    "brief": Field((3,), np.float64),
    "usual": Field((2,), np.float64),
    "extremes": Field((extremes.REMEMBERED, PARTS), np.float64),
    "running": Field((PARTS,), np.float64),
    "told": Field((2,), np.float64),
    "known": Field((values.KNOWN,), np.float64),
    "known_count": Field((), np.uint8),
    "week_mean": Field((season.WEEK,), np.float64),
    "week_rows": Field((season.WEEK,), np.uint8),
    "day_mean": Field((season.DAY,), np.float64),
    "day_rows": Field((season.DAY,), np.uint8),
}


@dataclass(frozen=True, slots=True)
class Novelty:
    """The detector of this file; see ``Detector``."""

    name: str = "novelty"
    params_version: str = "1"
    flag_at: float = 0.45
    unit_free: bool = True

    @property
    def fields(self) -> Mapping[str, Field]:
        """2.7 KB a series, of which the season has 1.9."""
        return _FIELDS

    def step(self, state: State, rollups: Rollups) -> tuple[State, Scores]:
        """See ``Detector.step``. Copies the state once; the work is done a cache-sized chunk of series at a time."""
        after = {name: array.copy() for name, array in state.items()}
        said = np.empty((4, len(rollups.series)))
        for start in range(0, len(rollups.series), _CHUNK_SERIES):
            chunk = slice(start, start + _CHUNK_SERIES)
            with np.errstate(over="ignore"):  # a ratio to nearly nothing is bounded where it is used
                said[:, chunk] = _step(after, rollups.series[chunk], rollups.bucket[chunk], rollups.mean[chunk])
        return after, Scores(rollups.series, *said)


def _step(state: dict[str, Array], series: Ints, bucket: Ints, value: Floats) -> Floats:
    """Score and learn one chunk in place; returns (score, expected, lower, upper) × series."""
    rows = state["rows"][series]
    value = np.clip(value, -VALUE_MAX, VALUE_MAX)
    anchor = np.where(rows == 0, value, state["anchor"][series])
    y, level, spread = value - anchor, state["level"][series], state["spread"][series]
    week, day = season.slots(bucket)
    means, seen = season.expectations(state, series, week, day)
    misfits = np.where(seen > 1, y - means, 0.0)
    from_level = y - level
    expected, half = _band(level, spread, means[0], seen[0], state["usual"][1][series])

    deviations = np.empty((PARTS, len(series)))
    deviations[0], deviations[1] = misfits[1], from_level
    movement = np.where(rows > 0, y - state["previous"][series], 0.0)
    deviations[2] = values.distance(state, series, y, spread)
    deviations[3:] = _sustained(state, series, movement, misfits)
    evidence = _surprise(state, series, rows, np.abs(deviations), FLOOR * spread)
    score = onset.tell(state, series, evidence * np.minimum(rows / WARM_ROWS, 1.0))

    pace = np.maximum(1.0 / LEVEL_ROWS, 1.0 / (rows + 1.0))
    bound = np.where(rows < 10, np.inf, CLIP * spread)
    season.learn(state, series, week, day, y, level, HOUR_CLIP * spread)
    state["level"][series] = level + pace * np.clip(from_level, -bound, bound)
    state["spread"][series] = spread + pace * (np.abs(from_level) - spread)
    state["anchor"][series], state["previous"][series], state["rows"][series] = anchor, y, rows + 1.0
    centre = np.where(rows > 0, anchor + expected, np.nan)
    return np.stack([np.minimum(score / _SCORE_MAX, 1.0), centre, centre - half, centre + half])


def _band(level: Floats, spread: Floats, mean: Floats, seen: Floats, misfit: Floats) -> tuple[Floats, Floats]:
    """What is expected, relative to the anchor, and half the width of the band around it.

    Level and hour of the week share by how well each has done: weights are inverse squares of their mean misfits.
    """
    worse = np.divide(misfit, spread, out=np.zeros_like(spread), where=(spread > 0) & (seen > 1))
    share = np.where((spread > 0) & (seen > 1), 1.0 / (1.0 + worse * worse), 0.0)
    return level + share * (mean - level), BAND * (spread + share * (misfit - spread))


def _sustained(state: dict[str, Array], series: Ints, movement: Floats, misfits: Floats) -> Floats:
    """Over the last rows: movement and misfit beyond the usual, and the mean misfit with the half hour of the day."""
    brief, usual = state["brief"][:, series], state["usual"][:, series]
    now = np.stack([np.abs(movement), np.abs(misfits[0]), misfits[2]])
    for place, over in enumerate(BRIEF_ROWS):
        brief[place] += (now[place] - brief[place]) / over
    usual += (now[:2] - usual) / USUAL_ROWS  # from zero: at first all movement is unusual, and counts as seen before
    state["brief"][:, series], state["usual"][:, series] = brief, usual
    return np.stack([brief[0] - usual[0], brief[1] - usual[1], brief[2]])


def _surprise(state: dict[str, Array], series: Ints, rows: Floats, deviations: Floats, floor: Floats) -> Floats:
    """The evidence of all parts together (natural log), after which their extremes are brought up to date."""
    known, running = state["extremes"][..., series], state["running"][:, series]
    product = np.ones(len(series))
    for part in extremes.surprise(deviations, floor, known, running):
        product *= part
    running = np.maximum(running, deviations)
    ends = np.flatnonzero((rows + 1.0) % extremes.BLOCK_ROWS == 0)
    state["extremes"][..., series[ends]] = extremes.remember(known[..., ends], running[:, ends])
    running[:, ends] = 0.0
    state["running"][:, series] = running
    return np.log(np.where(rows >= extremes.BLOCK_ROWS, product, 1.0))
