"""What goes wrong, when and to whom: a pure function of (seed, device, time), as everything before the wire is.

At most one fault befalls a message on its way; beside it, a device may be stuck, silent, under a pressure far too high,
or have a fast clock. It is stuck, silent or surging for a while of one to four minutes somewhere within a ten-minute
slot; one device surges always, soon after the start and every twenty minutes from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from infra.fleet.plan import Plan
from infra.fleet.signals import Floats, Ints, uniform

ON_THE_WAY: Final = ("duplicate", "disorder", "late", "broken", "spike", "repeat")
FAST_CLOCK_MS: Final = 240_000
SLOT_MS: Final = 600_000
SURGE: Final = 12.0
SURGE_AFTER_MS, SURGE_EVERY_MS, SURGE_LASTS_MS = 45_000, 1_200_000, 240_000

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Afflictions:
    """What befalls each of some readings, as parallel arrays.

    - ``way``: index into ``ON_THE_WAY``, or -1.
    - ``delay_ms``: from the instant of the reading to when it is sent.
    - ``again_ms``: from the first sending to a second, or -1 for none.
    - ``measured_at``: the instant whose values are sent: an earlier one where sensors are stuck.
    - ``surge``: where its pressure is ``SURGE`` too high.
    - ``clock_ms``: how far ahead the device's clock is.
    - ``choice``: a draw from [0, 1) for whoever renders the fault.
    """

    way: Ints
    delay_ms: Ints
    again_ms: Ints
    measured_at: Ints
    stuck: Flags
    silent: Flags
    surge: Flags
    clock_ms: Ints
    choice: Floats


def afflict(plan: Plan, device: Ints, at: Ints) -> Afflictions:
    """Decide the faults of the readings that ``device`` takes at the instant ``at`` (ms)."""
    seed = plan.seed
    drawn = uniform(seed, "fault", device, at)
    bounds = np.cumsum([plan.faults.get(name, 0.0) for name in ON_THE_WAY])
    way = np.searchsorted(bounds, drawn, side="right").astype(np.int64)
    way[way == len(ON_THE_WAY)] = -1
    far = uniform(seed, "far", device, at)
    choice = uniform(seed, "choice", device, at)
    delay_ms, again_ms = _delays(plan, way, far, choice)
    stuck, stuck_since = _whiles(plan.faults, "stuck", seed, device, at)
    silent, _ = _whiles(plan.faults, "silence", seed, device, at)
    return Afflictions(
        way=way,
        delay_ms=delay_ms,
        again_ms=again_ms,
        measured_at=np.where(stuck, stuck_since, at),
        stuck=stuck,
        silent=silent,
        surge=_surging(plan, device, at),
        clock_ms=np.where(_fast(plan, device), FAST_CLOCK_MS, 0),
        choice=choice,
    )


def _delays(plan: Plan, way: Ints, far: Floats, choice: Floats) -> tuple[Ints, Ints]:
    """First and second sending. What should be in time keeps a good distance from the allowed lateness, and what
    should be late from the closing of its minute, so that a slow machine does not turn one into the other."""
    lateness_ms, window_ms = plan.lateness_secs * 1_000, plan.window_secs * 1_000
    closed_ms = window_ms + 1.5 * lateness_ms + 5_000 + far * window_ms
    delay_ms = np.zeros(way.size)
    again_ms = np.full(way.size, -1.0)
    for name, where in ((name, way == i) for i, name in enumerate(ON_THE_WAY)):
        if name == "disorder":
            delay_ms[where] = (0.05 + 0.55 * far[where]) * lateness_ms
        elif name == "late":
            delay_ms[where] = closed_ms[where]
            again_ms[where & (choice < 0.25)] = 0
        elif name == "duplicate":
            again_ms[where] = np.where(choice[where] < 0.5, 0, 0.3 * far[where] * lateness_ms)
        elif name == "repeat":
            again_ms[where] = closed_ms[where]
    return delay_ms.astype(np.int64), again_ms.astype(np.int64)


def _whiles(faults: Mapping[str, float], name: str, seed: int, device: Ints, at: Ints) -> tuple[Flags, Ints]:
    """Which instants fall into a while of ``name``, and since when each such while has lasted."""
    slot = at // SLOT_MS
    length_ms = 60_000 + 180_000 * uniform(seed, f"{name} length", device, slot)
    since = slot * SLOT_MS + ((SLOT_MS - length_ms) * uniform(seed, f"{name} start", device, slot)).astype(np.int64)
    chosen = uniform(seed, name, device, slot) < faults.get(name, 0.0)
    return chosen & (at >= since) & (at < since + length_ms), since


def _surging(plan: Plan, device: Ints, at: Ints) -> Flags:
    """Which instants fall into a surge: by chance, and of one device always."""
    if "surge" not in plan.faults:
        return np.zeros(device.size, np.bool_)
    by_chance, _ = _whiles(plan.faults, "surge", plan.seed, device, at)
    since = at - plan.start_ms - SURGE_AFTER_MS
    now = (since >= 0) & (since % SURGE_EVERY_MS < SURGE_LASTS_MS)
    return np.asarray(by_chance | (now & (device == _one(plan, "surging"))))


def _one(plan: Plan, purpose: str) -> int:
    """The device that is always the one."""
    zero = np.zeros(1, np.int64)
    return int(uniform(plan.seed, purpose, zero, zero)[0] * plan.devices)


def _fast(plan: Plan, device: Ints) -> Flags:
    """The devices whose clock is fast: one always, and the asked share of the others."""
    if "fast-clock" not in plan.faults:
        return np.zeros(device.size, np.bool_)
    one = _one(plan, "fast clock")
    share = uniform(plan.seed, "fast clocks", device, np.zeros_like(device))
    return np.asarray((device == one) | (share < plan.faults["fast-clock"]))
