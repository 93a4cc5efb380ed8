"""A watch: one detector set on the series, or the devices, that patterns choose, and when its scores make an episode.

The rules of a settings file become a list of these (``rules``); the engine (``flagging``) runs them. A watch has a
state of its own: the same detector in two watches learns twice.

How scores become episodes, per subject (``episodes`` holds it): scores at or above ``flag_at`` that last ``for_mins``
open one. It goes on while scores are at or above ``clear_at``, and closes when there was none for ``close_after_mins``.
For ``cool_down_mins`` after that none opens; what still lasts then opens one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import Final, Literal

from dataflows.anomalies.protocol import Detector
from schemas.rules import Severity

Subject = Literal["series", "device"]

MINUTE_MS: Final = 60_000


@dataclass(frozen=True)
class Watch:
    """One detector, whom it watches, and when its scores make an episode.

    - ``name``: what flags call it (column ``detector``), unique among watches; ``pipeline`` is the engine's own.
    - ``devices``, ``metrics``: patterns (``*``, ``?``, ``[…]``, case counts); one of each must match. ``unless`` are
      pairs of a device and a metric pattern that are left out all the same.
    - ``subject``: "series" gives the detector the rollups of the series that match. "device" gives it one row a device
      and window in which a matching series had a rollup: ``count`` is the sum, ``mean``, ``min`` and ``max`` are that
      sum as a float, ``m2`` is 0; its flags have no metric ("").
    - ``flag_at``, ``clear_at``: hysteresis; ``clear_at`` is above 0 and at most ``flag_at``.
    - ``outage_share``: device watches only. Where at least this share of a partition's regularly reporting devices is
      silent in a window, one pipeline episode opens, and this watch opens none until they are back.
    - ``params_version``: changes whenever equal scores could make other episodes, or flags say other things of them.
      Learned state outlives that, as long as the detector's own ``params_version`` stays.
    """

    name: str
    detector: Detector
    devices: Sequence[str] = ("*",)
    metrics: Sequence[str] = ("*",)
    unless: Sequence[tuple[str, str]] = ()
    subject: Subject = "series"
    severity: Severity = "warning"
    flag_at: float = 0.5
    clear_at: float = 0.25
    for_mins: int = 1
    close_after_mins: int = 15
    cool_down_mins: int = 0
    outage_share: float | None = None
    params_version: str = "1"

    def __post_init__(self) -> None:
        assert 0.0 < self.clear_at <= self.flag_at, "an episode would never close, or close as it opens"
        assert min(self.for_mins, self.close_after_mins) >= 1, "whole minutes, at least one"
        assert self.cool_down_mins >= 0
        assert self.outage_share is None or self.subject == "device"

    def matches(self, device_id: str, metric: str) -> bool:
        """Whether the series counts here."""
        if not (self._devices.match(device_id) and self._metrics.match(metric)):
            return False
        return not any(device.match(device_id) and its.match(metric) for device, its in self._unless)

    @cached_property
    def _devices(self) -> re.Pattern[str]:
        return _any_of(self.devices)

    @cached_property
    def _metrics(self) -> re.Pattern[str]:
        return _any_of(self.metrics)

    @cached_property
    def _unless(self) -> Sequence[tuple[re.Pattern[str], re.Pattern[str]]]:
        return [(_any_of([device]), _any_of([metric])) for device, metric in self.unless]


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns))
