"""The pipeline's own silence: when a large share of the devices stops at once, it is not the devices.

Rule: a device is regular once it has spoken in nearly every window of late (``REGULAR`` of a fading mean over some
eight windows). Where a partition has ``DEVICES_MIN`` of them and at least ``share`` of those are silent in one window,
one episode opens; while it is open nobody's regularity changes, and no device's silence opens an episode of its own.
It closes when ``close_after_mins`` went by with less than half of that share silent. After a day it is the new normal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dataflows.anomalies.episodes import NEVER
from dataflows.anomalies.protocol import Array, Floats, Ints
from dataflows.anomalies.watch import MINUTE_MS, Watch

NAME: Final = "pipeline"
"""What flags of it carry as detector; their device and metric are empty."""

WINDOWS: Final = 8
REGULAR: Final = 0.75
DEVICES_MIN: Final = 4
LASTS_MS_MAX: Final = 24 * 60 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Silence:
    """What one window said of the pipeline: regular devices and those of them that spoke, and what became of it."""

    regular: int
    spoke: int
    phase: str | None  # "open", "update", "close"; None where there is nothing to tell
    opened: int  # opening window of the episode that phase speaks of


class Outage:
    """The episodes of the pipeline in one partition, as its devices tell them."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        asked = [watch for watch in watches if watch.outage_share is not None]
        self._share = min((watch.outage_share or 1.0 for watch in asked), default=None)
        self._close_ms = min((watch.close_after_mins for watch in asked), default=1) * MINUTE_MS
        self.presence: Floats = np.empty(0)
        self.times: dict[str, int] = {"opened": NEVER, "last": NEVER}

    @property
    def is_open(self) -> bool:
        return self.times["opened"] != NEVER

    @property
    def opened(self) -> int:
        """Opening window of the open episode."""
        return self.times["opened"]

    def turn(self, start: int, end: int, devices: Ints, of: int) -> Silence:
        """The window [start, end) closed; ``devices`` of the ``of`` known ones spoke in it."""
        self.presence = np.append(self.presence, np.zeros(of - len(self.presence)))
        spoke = np.zeros(of, np.bool_)
        spoke[devices] = True
        regular = self.presence >= REGULAR
        count, there = int(np.count_nonzero(regular)), int(np.count_nonzero(regular & spoke))
        phase, opened = self._moved(start, end, count, there)
        if not self.is_open or end - self.opened >= LASTS_MS_MAX:
            self.presence += (spoke - self.presence) / WINDOWS
        return Silence(count, there, phase, opened)

    def keep(self, devices: Ints) -> None:
        """Forget all but ``devices``, which are numbered anew in this order."""
        self.presence = self.presence[devices]

    def arrays(self) -> dict[str, Array]:
        return {"presence": self.presence.copy()}

    def _moved(self, start: int, end: int, regular: int, spoke: int) -> tuple[str | None, int]:
        if self._share is None:
            return None, NEVER
        silent = (regular - spoke) / regular if regular else 0.0
        out = regular >= DEVICES_MIN and silent >= self._share
        if not self.is_open:
            if not out:
                return None, NEVER
            self.times = {"opened": start, "last": end}
            return "open", start
        opened = self.opened
        if regular >= DEVICES_MIN and silent >= self._share / 2:
            self.times["last"] = end
        if end - self.times["last"] >= self._close_ms:
            self.times = {"opened": NEVER, "last": NEVER}
            return "close", opened
        return ("update" if out else None), opened
