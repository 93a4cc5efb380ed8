"""The rows of open windows, in columns, in the order of the log.

Rule: a row is kept until its window closes, and with the last row of a window go the names it interned:
nothing here grows with the devices ever seen. A message costs 12 bytes and each of its readings 12 more.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

BLOCK_MAX: Final = 1 << 17


class Array:
    """A growing array: blocks that double up to a limit, so that neither single rows nor batches are copied twice."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._blocks: list[npt.NDArray[Any]] = [np.empty(16, dtype)]
        self._used = 0  # in the last block; those before are full

    def extend(self, items: npt.NDArray[Any]) -> None:
        while len(items):
            block = self._blocks[-1]
            if self._used == len(block):
                block = np.empty(min(2 * len(block), BLOCK_MAX), block.dtype)
                self._blocks.append(block)
                self._used = 0
            taken = min(len(items), len(block) - self._used)
            block[self._used : self._used + taken] = items[:taken]
            self._used += taken
            items = items[taken:]

    def whole(self) -> npt.NDArray[Any]:
        return np.concatenate([*self._blocks[:-1], self._blocks[-1][: self._used]])


class Names:
    """Strings as small integers, by order of arrival; freed with this object.

    Polars keeps the mapping as long as some series refers to it: an empty one is enough.
    """

    def __init__(self) -> None:
        self._categories = pl.Categories.random("ionwax")
        self._alive = pl.Series([], dtype=pl.Categorical(self._categories))

    def codes(self, names: pl.Series) -> npt.NDArray[np.uint32]:
        codes: npt.NDArray[np.uint32] = names.cast(self._alive.dtype).to_physical().to_numpy()
        return codes

    def known(self) -> pl.Series:
        """All names, by code."""
        return self._categories.to_series()


class OpenWindow:
    """The rows of one window: parallel by message (device, time, size) and by reading (metric, value)."""

    def __init__(self, start: int, first_offset: int) -> None:
        self.start = start
        self.first_offset = first_offset
        self.count = 0  # readings
        self.devices, self.metrics = Names(), Names()
        self._device = Array(np.uint32)
        self._time = Array(np.uint32)  # ms since start: a window is at most a day
        self._size = Array(np.uint32)
        self._metric = Array(np.uint32)
        self._value = Array(np.float64)

    def add(self, messages: pl.DataFrame) -> int:
        """Append messages of this window (``schemas.frames.MESSAGES``); answers with the number of readings."""
        metrics = messages["metric"].explode(empty_as_null=False)
        self._device.extend(self.devices.codes(messages["device_id"]))
        self._time.extend(messages["event_time"].to_numpy() - self.start)
        self._size.extend(messages["metric"].list.len().to_numpy())
        self._metric.extend(self.metrics.codes(metrics))
        self._value.extend(messages["value"].explode(empty_as_null=False).to_numpy())
        self.count += len(metrics)
        return len(metrics)

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """Device, time and size by message; metric and value by reading."""
        arrays = (self._device, self._time, self._size, self._metric, self._value)
        return tuple(array.whole() for array in arrays)


class OpenRows:
    """All open windows of a partition."""

    def __init__(self) -> None:
        self._windows: dict[int, OpenWindow] = {}
        self.count = 0  # readings, duplicates included

    def add(self, messages: pl.DataFrame, windows: npt.NDArray[np.int64]) -> None:
        """Take messages, of the windows that start at ``windows``; both in the order of the log."""
        if not len(windows):
            return
        for start in [windows[0]] if (windows == windows[0]).all() else np.unique(windows):
            chosen = windows == start
            part = messages if chosen.all() else messages.filter(pl.Series(chosen))
            window = self._windows.get(int(start))
            if window is None:
                window = self._windows[int(start)] = OpenWindow(int(start), part["offset"][0])
            self.count += window.add(part)

    def pop(self, until: int) -> list[OpenWindow]:
        """Remove and return the windows before ``until``, ascending."""
        popped = [self._windows.pop(start) for start in sorted(s for s in self._windows if s < until)]
        self.count -= sum(window.count for window in popped)
        return popped

    def first_offset(self, otherwise: int) -> int:
        """The lowest offset that contributes to an open window."""
        return min((window.first_offset for window in self._windows.values()), default=otherwise)
