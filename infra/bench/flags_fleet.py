"""Minute rollups of a simulated fleet, without its wire: healthy devices, and some that break in one of six ways.

Readings are those of ``infra.fleet.signals``, four a minute and device; a fault changes the readings (or leaves them
out) before they are reduced, as it would on a device. Rule: any stretch of minutes can be made alone and is the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from infra.fleet.signals import METRICS, Floats, Ints, noise, uniform, values

MINUTE_MS: Final = 60_000
DAY_MINS: Final = 1_440
READINGS: Final = 4  # a minute and device
START_MS: Final = 1_763_683_200_000  # a midnight, UTC
STRETCH_MINS: Final = 30  # what is made at once

FAULTS: Final[Mapping[str, str]] = {
    "spike": "temperature",
    "step": "temperature",
    "drift": "temperature",
    "stuck": "temperature",
    "silence": "",  # of the whole device
    "wider spread": "temperature",
}
"""The faults, and the metric each befalls. Stuck sensors and silent devices recover after half a day; the others stay
as they have become: a drift ends after half a day, high."""
LASTS_MINS: Final = 720


@dataclass(frozen=True, slots=True)
class Fleet:
    """``healthy`` devices, and after them ``faulty`` devices of each fault, which break once within ``days``."""

    healthy: int
    faulty: int = 0
    days: int = 14
    seed: int = 1

    @property
    def devices(self) -> int:
        """All, broken ones last."""
        return self.healthy + self.faulty * len(FAULTS)

    @property
    def minutes(self) -> int:
        """The length of the history."""
        return self.days * DAY_MINS

    def fault_of(self, device: int) -> str | None:
        """What befalls ``device``; None where it is healthy."""
        return None if device < self.healthy else list(FAULTS)[(device - self.healthy) // self.faulty]

    def begins(self) -> Ints:
        """The minute each device breaks, by device: somewhere in the fifth seventh of the history; never: -1."""
        every = np.arange(self.devices)
        drawn = uniform(self.seed, "break", every, np.zeros_like(every))
        at = ((4 + drawn) / 7 * self.minutes).astype(np.int64)
        return np.where(every < self.healthy, -1, at)

    def stretches(self) -> Iterator["Stretch"]:
        """The history in order, ``STRETCH_MINS`` at a time."""
        for first in range(0, self.minutes, STRETCH_MINS):
            yield stretch(self, first, min(STRETCH_MINS, self.minutes - first))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rollups of some minutes: arrays of (minute, metric, device); ``there`` is of (minute, device)."""

    bucket: Ints
    there: np.ndarray
    mean: Floats
    m2: Floats
    min: Floats
    max: Floats


def stretch(fleet: Fleet, first: int, minutes: int) -> Stretch:
    """The rollups of ``minutes`` minutes from minute ``first`` of the history on."""
    bucket = START_MS + (first + np.arange(minutes)) * MINUTE_MS
    shape = (minutes, fleet.devices, READINGS)
    every = np.arange(fleet.devices)
    phase = (uniform(fleet.seed, "phase", every, np.zeros_like(every)) * MINUTE_MS / READINGS).astype(np.int64)
    at = bucket[:, None, None] + phase[:, None] + np.arange(READINGS) * (MINUTE_MS // READINGS)
    device = np.broadcast_to(every[:, None], shape)
    since = first + np.arange(minutes)[:, None] - np.where(fleet.begins() < 0, 1 << 40, fleet.begins())
    read = values(fleet.seed, device.ravel(), at.ravel())
    readings = np.stack([read[metric].reshape(shape) for metric in METRICS], axis=1)
    _break(fleet, readings, at, since)
    mean = readings.mean(axis=-1)
    # A mean of equal readings is that value to the bit, as the window core's is.
    low, high = readings.min(axis=-1), readings.max(axis=-1)
    mean = np.clip(mean, low, high)
    m2 = ((readings - mean[..., None]) ** 2).sum(axis=-1)
    return Stretch(bucket, ~(_lasts(since) & _is(fleet, "silence")), mean, m2, low, high)


def _is(fleet: Fleet, fault: str) -> np.ndarray:
    """Which devices have ``fault``."""
    first = fleet.healthy + list(FAULTS).index(fault) * fleet.faulty
    every = np.arange(fleet.devices)
    return np.asarray((every >= first) & (every < first + fleet.faulty))


def _lasts(since: Ints) -> np.ndarray:
    """Whether a fault that ends is still there."""
    return np.asarray((since >= 0) & (since < LASTS_MINS))


def _break(fleet: Fleet, readings: Floats, at: Ints, since: Ints) -> None:
    """Change the readings of broken devices in place: (minute, metric, device, reading)."""
    temperature = readings[:, METRICS.index("temperature")]
    broken = since >= 0
    stuck = _lasts(since) & _is(fleet, "stuck")
    if stuck.any():
        every, zero = np.arange(fleet.devices), np.zeros(fleet.devices, np.int64)
        held = values(fleet.seed, every, zero + START_MS + fleet.begins() * MINUTE_MS)["temperature"]
        temperature[:] = np.where(stuck[..., None], held[:, None], temperature)
    temperature += np.where((since == 0) & _is(fleet, "spike"), 60.0, 0.0)[..., None]
    temperature += np.where(broken & _is(fleet, "step"), 40.0, 0.0)[..., None]
    temperature += np.where(broken & _is(fleet, "drift"), 0.2 * np.minimum(since, LASTS_MINS), 0.0)[..., None]
    wider = broken & _is(fleet, "wider spread")
    if wider.any():
        device = np.broadcast_to(np.arange(fleet.devices)[:, None], at.shape)
        temperature += np.where(wider[..., None], 25.0 * noise(fleet.seed, "wider", device, at), 0.0)
