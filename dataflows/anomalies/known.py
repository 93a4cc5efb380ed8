"""The series and devices that a partition has heard of, by number, and which of them are forgotten.

Rule: numbers are given in the order of first sight; a series that said nothing for ``forget_after_ms`` is forgotten,
and above ``series_max`` those that have been quiet longest are. Both happen as windows close: the log alone decides.
"""

from typing import Final

import numpy as np
import polars as pl

from dataflows.anomalies.protocol import Ints

HOUR_MS: Final = 3_600_000
_KEY: Final = ["device_id", "metric"]


class Known:
    """Series number → device, metric, device's number, start of the last window with a rollup."""

    def __init__(self, forget_after_ms: int, series_max: int) -> None:
        self._forget_after_ms = forget_after_ms
        self._series_max = series_max
        self.device_id: list[str] = []
        self.metric: list[str] = []
        self.devices: list[str] = []
        self.device: Ints = np.empty(0, np.int64)
        self.last: Ints = np.empty(0, np.int64)
        self._numbers: dict[str, int] = {}  # of devices
        self._table = self._empty()

    def __len__(self) -> int:
        return len(self.device_id)

    def numbers(self, rollups: pl.DataFrame) -> Ints:
        """The number of each row's series, those of new ones included; no series is in ``rollups`` twice."""
        found = self.find(rollups)
        if found.null_count():
            self.add(*(rollups.filter(found.is_null())[name].to_list() for name in _KEY))
            found = self.find(rollups)
        return found.to_numpy()

    def find(self, rollups: pl.DataFrame) -> pl.Series:
        """The number of each row's series; null where it is not known."""
        return rollups.select(_KEY).join(self._table, on=_KEY, how="left", maintain_order="left")["number"]

    def add(self, device_id: list[str], metric: list[str]) -> None:
        """Number series that are new."""
        first = len(self)
        for device in device_id:
            if device not in self._numbers:
                self._numbers[device] = len(self.devices)
                self.devices.append(device)
        self.device_id += device_id
        self.metric += metric
        self.device = np.append(self.device, [self._numbers[device] for device in device_id]).astype(np.int64)
        self.last = np.append(self.last, np.full(len(device_id), np.iinfo(np.int64).min // 2))
        numbers = pl.Series("number", range(first, len(self)), pl.Int64)
        self._table = pl.concat(
            [self._table, pl.DataFrame({"device_id": device_id, "metric": metric, "number": numbers})], rechunk=True
        )

    def lasting(self, end: int, length_ms: int) -> Ints | None:
        """Numbers of the series that are not forgotten as the window up to ``end`` closes; None where all are kept."""
        keep = self.last >= end - self._forget_after_ms if end % HOUR_MS < length_ms else np.ones(len(self), np.bool_)
        over = np.count_nonzero(keep) - self._series_max
        if over > 0:  # the longest quiet first; of those quiet equally long, the first seen
            keep[np.flatnonzero(keep)[np.argsort(self.last[keep], kind="stable")[:over]]] = False
        return None if keep.all() else np.flatnonzero(keep)

    def keep(self, series: Ints) -> Ints:
        """Forget all but ``series``, which are numbered anew in this order; their devices' former numbers, in order."""
        device_id, metric = self.device_id, self.metric
        last, devices = self.last[series], self.devices
        former = dict(self._numbers)
        self.__init__(self._forget_after_ms, self._series_max)  # type: ignore[misc]
        self.add([device_id[number] for number in series], [metric[number] for number in series])
        self.last = last
        assert set(self.devices) <= set(devices)
        return np.array([former[device] for device in self.devices], np.int64)

    @staticmethod
    def _empty() -> pl.DataFrame:
        return pl.DataFrame(schema={"device_id": pl.String(), "metric": pl.String(), "number": pl.Int64()})
