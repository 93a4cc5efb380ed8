"""A fleet's history through the real engine of ``anomaly_flags``, and what it told: how calm, how sharp.

The engine gets what it gets from ``aggregates.minute``: rollups, then the ``closed`` record of each minute. Nothing is
stored or published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from dataflows.anomalies.flagging import Flags
from dataflows.anomalies.watch import Watch
from infra.bench.flags_fleet import FAULTS, MINUTE_MS, READINGS, START_MS, Fleet, Stretch
from infra.fleet.signals import METRICS
from schemas.flags import TOLD, Episode, RollupSlice
from schemas.progress import Claim, Progress

FOUND_MINS_MAX: Final = 1_440
"""A fault that is told later than this was not found."""


@dataclass(frozen=True, slots=True)
class Told:
    """An episode: minutes of the history; ``closed`` is None where the history ended first."""

    device: int
    metric: str
    detector: str
    opened: int
    closed: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one kind of fault: of ``devices``, how many were told of, and how."""

    fault: str
    devices: int
    found: int
    delays_mins: Sequence[int]  # from the fault to the first episode, of those found, ascending
    detectors: Sequence[str]  # which told first, most often first
    opened: int  # episodes of these devices since they broke
    once: int  # devices with exactly one episode
    closed: int  # episodes that closed before the history ended


def run(fleet: Fleet, watches: Sequence[Watch]) -> list[Told]:
    """Every episode that the engine tells of the fleet's history, in the order in which they opened."""
    names = [f"device-{number:05}" for number in range(fleet.devices)]
    engine = Flags(watches, MINUTE_MS, Claim("bench", "aggregates.minute", 0, 1, "", Progress.begin(0)))
    offset, told = 0, dict[str, Told]()
    for stretch in fleet.stretches():
        slice_ = records(stretch, names, offset)
        offset = slice_.end
        for episode in engine.feed(slice_).episodes:
            told[episode.episode_id] = _told(episode, names)
    return sorted(told.values(), key=lambda one: one.opened)


def records(stretch: Stretch, names: Sequence[str], offset: int) -> RollupSlice:
    """The records of a stretch from ``offset`` on: of each minute its rollups, then that it is closed."""
    minutes, metrics, devices = stretch.mean.shape
    there = np.broadcast_to(stretch.there[:, None], stretch.mean.shape)
    minute, metric, device = np.nonzero(there)
    ends = np.cumsum(there.reshape(minutes, -1).sum(axis=1)) + np.arange(minutes)  # offsets of the closings
    columns = {name: getattr(stretch, name)[there] for name in ("mean", "m2", "min", "max")}
    bucket = stretch.bucket[minute]
    rollups = pl.DataFrame(
        {
            "offset": offset + np.arange(len(minute)) + minute,
            "bucket": bucket,
            "device_id": pl.Series(names).gather(device),
            "metric": pl.Series(METRICS).gather(metric),
            "count": np.full(len(minute), READINGS),
            **columns,
            "first": columns["min"],
            "last": columns["max"],
            "first_ts": bucket,
            "last_ts": bucket,
            "revision": np.zeros(len(minute), np.int64),
        },
        schema=TOLD,
    )
    closed = [(offset + int(end), int(start) + MINUTE_MS) for end, start in zip(ends, stretch.bucket, strict=True)]
    assert (metrics, devices) == (len(METRICS), len(names))
    return RollupSlice(0, offset, closed[-1][0] + 1, rollups, closed)


def _told(episode: Episode, names: Sequence[str]) -> Told:
    flag = episode.flag
    assert flag.device_id, "the pipeline was silent, in a fleet that is not"
    closed = None if episode.closed is None else (episode.closed - START_MS) // MINUTE_MS
    return Told(names.index(flag.device_id), flag.metric, flag.detector, (flag.bucket - START_MS) // MINUTE_MS, closed)


def calm(fleet: Fleet, told: Sequence[Told], rules: Sequence[str]) -> dict[str, float]:
    """Episodes a healthy device and week, by rule."""
    healthy = [one.detector for one in told if one.device < fleet.healthy]
    return {name: healthy.count(name) / (fleet.healthy * fleet.days / 7) for name in rules}


def worst(fleet: Fleet, told: Sequence[Told]) -> float:
    """Episodes a week of the healthy device that had most."""
    counts = np.bincount([one.device for one in told if one.device < fleet.healthy], minlength=1)
    return float(counts.max()) / fleet.days * 7


def found(fleet: Fleet, told: Sequence[Told]) -> list[Found]:
    """What became of each kind of fault."""
    return [_found(fleet, told, fault) for fault in FAULTS]


def _found(fleet: Fleet, told: Sequence[Told], fault: str) -> Found:
    begins = fleet.begins()
    broken = [device for device in range(fleet.healthy, fleet.devices) if fleet.fault_of(device) == fault]
    after = {
        device: [one for one in told if one.device == device and one.opened >= begins[device]] for device in broken
    }
    firsts = {
        device: min(episodes, key=lambda one: one.opened)
        for device, episodes in after.items()
        if episodes and episodes[0].opened - begins[device] <= FOUND_MINS_MAX
    }
    by = [one.detector for one in firsts.values()]
    every = [one for episodes in after.values() for one in episodes]
    return Found(
        fault=fault,
        devices=len(broken),
        found=len(firsts),
        delays_mins=sorted(int(one.opened - begins[device]) for device, one in firsts.items()),
        detectors=sorted(set(by), key=by.count, reverse=True),
        opened=len(every),
        once=sum(len(episodes) == 1 for episodes in after.values()),
        closed=sum(one.closed is not None for one in every),
    )
