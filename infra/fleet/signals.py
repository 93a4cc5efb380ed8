"""What sensors measure and when devices speak: pure functions of (seed, device, time), vectorised.

Randomness is a hash of its coordinates (splitmix64), not a generator with a state: any instant of any device can be
asked for alone, in any order, and answers the same.
"""

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

METRICS: Final = ("temperature", "pressure", "vibration", "running")
DAY_MS: Final = 86_400_000

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, purpose: str, device: Ints, at: Ints) -> Floats:
    """Independent draws from [0, 1), one for each (device, at); ``purpose`` names an independent family of draws."""
    start = (seed * int(_GOLDEN) + zlib.crc32(purpose.encode())) & 0xFFFF_FFFF_FFFF_FFFF
    state = _mix(device.astype(np.uint64) * _GOLDEN ^ np.uint64(start))
    return (_mix(state ^ at.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: Words) -> Words:
    """Splitmix64's finaliser: every bit of the input moves every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def noise(seed: int, purpose: str, device: Ints, at: Ints) -> Floats:
    """Draws of mean 0 and deviation 1, bell-shaped and within ±3.5: four uniforms added."""
    total = np.sum([uniform(seed, f"{purpose}{i}", device, at) for i in range(4)], axis=0)
    return np.asarray((total - 2.0) * 3.0**0.5)


def values(seed: int, device: Ints, at: Ints) -> dict[str, Floats]:
    """The metrics of each (device, instant in ms), rounded as a sensor's display would.

    A device has a temperament (offsets drawn once), a daily shape, a drift of weeks, and runs in shifts.
    """
    still = np.zeros_like(at)
    temper = {name: uniform(seed, f"t{name}", device, still) for name in METRICS}
    day = 2 * np.pi * ((at % DAY_MS) / DAY_MS + 0.1 * temper["pressure"])
    drift = np.abs(((at / DAY_MS / 30 + temper["vibration"]) % 2.0) - 1.0)  # up and down over two months
    running = uniform(seed, "shift", device, at // 300_000) < 0.6 + 0.35 * np.sin(day - 1.5)
    on = running.astype(np.float64)
    warm = 18 + 30 * temper["temperature"] + 6 * np.sin(day - 2.0) + 22 * on + 3 * drift
    return {
        "temperature": np.round(warm + 0.35 * noise(seed, "temp", device, at), 2),
        "pressure": np.round(1 + 4 * temper["pressure"] * on + 0.2 * drift + 0.02 * noise(seed, "pres", device, at), 3),
        "vibration": np.round(
            (0.02 + 1.6 * temper["vibration"] * on) * np.exp(0.3 * noise(seed, "vibr", device, at)), 4
        ),
        "running": on,
    }


def speaking_times(device_count: int, seed: int, interval_ms: float, start_ms: int, until_ms: int) -> tuple[Ints, Ints]:
    """(device, instant in ms) of every reading in [start, until), by device and time: each has its phase and keeps it.

    Adjoining ranges share no instant and leave none out: it is counted in whole microseconds.
    """
    every = np.arange(device_count, dtype=np.int64)
    interval_us = max(1, round(interval_ms * 1_000))
    phase_us = (uniform(seed, "phase", every, np.zeros_like(every)) * interval_us).astype(np.int64)
    first = -((phase_us - start_ms * 1_000) // interval_us)
    count = -((phase_us - until_ms * 1_000) // interval_us) - first
    device = np.repeat(every, count)
    nth = np.arange(device.size) - np.repeat(np.cumsum(count) - count, count)
    return device, (phase_us[device] + (first[device] + nth) * interval_us) // 1_000
