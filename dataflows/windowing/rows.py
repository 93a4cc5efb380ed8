"""The rows of open windows, in columns, in the order of the log.

Rule: a row is kept until its window closes. A message costs 12 bytes and each of its readings 8 more, or 12 where
messages differ in shape.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dataflows.windowing.columns import Columns, Floats, Ints, Mask
from dataflows.windowing.names import Codes, Generation

BLOCK_MAX: Final = 1 << 17


class Array:
    """A growing array: blocks that double up to a limit, so that nothing is copied twice and little lies idle."""

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


class Rows:
    """Rows of one window and one generation of names: parallel by message, and by reading.

    As long as all messages name the same metrics in the same order, ``shape`` holds those and ``metric`` nothing.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.shape: Codes | None = None
        self._messages = 0
        self.device = Array(np.uint32)
        self.time = Array(np.uint32)  # ms since the window's start: it is at most a day
        self.size = Array(np.uint32)
        self.metric = Array(np.uint32)
        self.value = Array(np.float64)

    def add(self, device: Codes, time: Codes, size: Codes, value: Floats) -> None:
        """Append messages, whose metrics are appended next."""
        self.device.extend(device)
        self.time.extend(time)
        self.size.extend(size)
        self.value.extend(value)

    def add_shaped(self, shape: Codes, messages: int) -> None:
        """Append the metrics of messages that are all of one shape."""
        if not self._messages:
            self.shape = shape
        if self.shape is not shape:
            self.add_metrics(np.tile(shape, messages), messages)
            return
        self._messages += messages

    def add_metrics(self, metric: Codes, messages: int) -> None:
        """Append the metrics of messages that differ in shape, among themselves or from those before."""
        if self.shape is not None:
            self.metric.extend(np.tile(self.shape, self._messages))
            self.shape = None
        self.metric.extend(metric)
        self._messages += messages


class OpenWindow:
    """All rows of one window."""

    def __init__(self, start: int, first_offset: int) -> None:
        self.start = start
        self.first_offset = first_offset
        self.count = 0  # readings
        self.parts: list[Rows] = []

    def rows(self, generation: Generation) -> Rows:
        """Where rows of this generation are added."""
        if not self.parts or self.parts[-1].generation is not generation:
            self.parts.append(Rows(generation))
        return self.parts[-1]


class OpenRows:
    """All open windows of a partition."""

    def __init__(self) -> None:
        self._windows: dict[int, OpenWindow] = {}
        self._generation = Generation()
        self.count = 0  # readings, duplicates included

    def add(self, columns: Columns, windows: Ints, chosen: Mask) -> None:
        """Take the chosen messages into the windows that start at ``windows``."""
        everything = bool(chosen.all())
        starts = _distinct(windows if everything else windows[chosen])
        if not starts:
            return
        device = self._generation.devices.codes(columns.device)
        metric, shaped = self._generation.metric_codes(columns)
        for start in starts:
            whole = everything and len(starts) == 1
            mask = None if whole else chosen & (windows == start)
            by_reading: Any = slice(None) if mask is None else np.repeat(mask, columns.size)
            rows = self._add(start, columns, device, mask, by_reading)
            messages = len(device) if mask is None else int(np.count_nonzero(mask))
            if shaped:
                rows.add_shaped(metric, messages)
            else:
                rows.add_metrics(metric[by_reading], messages)

    def _add(self, start: int, columns: Columns, device: Codes, mask: Mask | None, by_reading: Any) -> Rows:
        by_message: Any = slice(None) if mask is None else mask
        window = self._windows.get(start)
        if window is None:
            window = self._windows[start] = OpenWindow(start, int(columns.offset[by_message][0]))
        rows, values = window.rows(self._generation), columns.value[by_reading]
        time = (columns.event[by_message] - start).astype(np.uint32)
        rows.add(device[by_message], time, columns.size[by_message], values)
        window.count += len(values)
        self.count += len(values)
        return rows

    def pop(self, until: int) -> Sequence[OpenWindow]:
        """Remove and return the windows before ``until``, ascending."""
        popped = [self._windows.pop(start) for start in sorted(s for s in self._windows if s < until)]
        self.count -= sum(window.count for window in popped)
        return popped

    def first_offset(self, otherwise: int) -> int:
        """The lowest offset that contributes to an open window."""
        return min((window.first_offset for window in self._windows.values()), default=otherwise)

    def forget(self, devices: int, metrics: int) -> None:
        """Start a new generation of names if a window that held this many left most of the present one unused."""
        if self._generation.is_stale(devices, metrics):
            self._generation = Generation()


def _distinct(windows: Ints) -> list[int]:
    if not len(windows):
        return []
    if (windows == windows[0]).all():
        return [int(windows[0])]
    distinct: list[int] = np.unique(windows).tolist()
    return distinct
