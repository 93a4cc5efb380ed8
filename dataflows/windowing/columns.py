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


@dataclass(frozen=True, slots=True)
class Columns:
    """Messages in the order of the log; ``metric`` and ``value`` are by reading, ``size`` of them a message."""

    offset: Ints
    append: Ints
    event: Ints
    device: pl.Series  # String
    size: npt.NDArray[np.uint32]
    metric: pl.Series  # String
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
            metric=pl.Series(metrics, dtype=pl.String()),
            value=values.to_numpy(),
        )

    def by_reading(self, mask: Mask) -> Mask:
        """A mask of messages as a mask of their readings."""
        return np.repeat(mask, self.size)


def _flat(lists: pl.Series) -> tuple[npt.NDArray[np.uint32], Any]:
    """The length of each list, and all contents one after the other, as an Arrow array."""
    arrow = lists.to_arrow(compat_level=pl.CompatLevel.newest())
    return np.diff(arrow.offsets.to_numpy()).astype(np.uint32), arrow.flatten()
