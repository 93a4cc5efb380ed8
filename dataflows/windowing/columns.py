"""A frame of messages as plain arrays, without copying its strings or values.

Rule: a list column is read through Arrow, as offsets and contents; expressions on lists cost more than all the
rest of a small slice.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Sizes = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Columns:
    """Messages in the order of the log; ``metric`` and ``value`` are by reading, ``size`` of them a message."""

    offset: Ints
    append: Ints
    event: Ints
    device: pl.Series  # String
    size: Sizes
    metric: Any  # pyarrow.StringViewArray
    value: Floats

    @classmethod
    def of(cls, messages: pl.DataFrame) -> "Columns":
        """The columns of a frame (``schemas.frames.MESSAGES``), however it is chunked."""
        sizes, metrics = _flat(messages["metric"])
        _, values = _flat(messages["value"])
        return cls(
            offset=messages["offset"].to_numpy(),
            append=messages["append_time"].to_numpy(),
            event=messages["event_time"].to_numpy(),
            device=messages["device_id"],
            size=sizes,
            metric=metrics,
            value=values.to_numpy(),
        )

    @property
    def period(self) -> int:
        """How many metrics each message names, if all name the same ones in the same order; else 0.

        Looks at the strings' views (Arrow's variable-size binary view layout): where their bits are equal so are
        the strings. Long strings have unequal views and are compared by content.
        """
        period = int(self.size[0]) if len(self.size) else 0
        rest = len(self.metric) - period
        if not period or not (self.size == period).all():
            return 0
        views = np.frombuffer(self.metric.buffers()[1], np.int64)[2 * self.metric.offset :][: 2 * len(self.metric)]
        if (views[2 * period :] == views[: 2 * rest]).all():
            return period
        metrics = pl.Series(self.metric)
        return period if (metrics.slice(period) == metrics.slice(0, rest)).all() else 0


def _flat(lists: pl.Series) -> tuple[Sizes, Any]:
    """The length of each list, and all contents one after the other, as an Arrow array."""
    arrow = lists.to_arrow(compat_level=pl.CompatLevel.newest())
    offsets = arrow.offsets.to_numpy()
    first = int(offsets[0])
    return np.diff(offsets).astype(np.uint32), arrow.values.slice(first, int(offsets[-1]) - first)
