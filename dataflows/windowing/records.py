"""All records of a slice as the closing rule reads them: messages, ticks and refusals in the order of the log."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from dataflows.windowing.columns import Ints
from dataflows.windowing.judged import Judged
from dataflows.windowing.spans import LONG_AGO
from dataflows.windowing.ticks import Ticks
from schemas.log import Refused


@dataclass(frozen=True, slots=True)
class Records:
    """A stretch of the log, one entry a record, in its order; parallel arrays.

    Records without an accepted reading (ticks, refusals) have ``window`` and ``time`` at ``LONG_AGO``.
    """

    append: Ints
    window: Ints  # start of the window its readings belong to
    time: Ints  # min(event time, append time)
    level: Ints  # how far the ticks reach, this record's included; LONG_AGO where nobody has ticked

    @classmethod
    def of_messages(cls, judged: Judged, level: int) -> "Records":
        """Messages alone; ``level`` is the ticks' throughout."""
        columns, accepted = judged.columns, judged.accepted
        return cls(
            append=columns.append,
            window=np.where(accepted, judged.windows, LONG_AGO),
            time=np.where(accepted, np.minimum(columns.event, columns.append), LONG_AGO),
            level=np.full(len(accepted), level),
        )


def weave(judged: Judged, ticks: pl.DataFrame, refused: Sequence[Refused], heard: Ticks) -> tuple[Records, Ints]:
    """The records of a slice, and the place of each message among them. Ticks are heard, each at its record.

    ``ticks`` is a frame (``schemas.frames.TICKS``), ``refused`` are records without a message; both by offset.
    """
    level_before = heard.level
    messages = Records.of_messages(judged, level_before)
    count, others = len(messages.append), len(ticks) + len(refused)
    if not others:
        return messages, np.arange(count)
    offsets = [judged.columns.offset, ticks["offset"].to_numpy(), _ints(one.offset for one in refused)]
    order = np.argsort(np.concatenate(offsets), kind="stable")
    place = np.empty(count + others, np.int64)
    place[order] = np.arange(count + others)

    said = (ticks["worker"].to_list(), ticks["ts"].to_list(), ticks["append_time"].to_list())
    levels = [level_before, *(heard.hear(worker, min(ts, append)) for worker, ts, append in zip(*said, strict=True))]
    ticked = place[count : count + len(ticks)]
    appends = [messages.append, ticks["append_time"].to_numpy(), _ints(one.append_time for one in refused)]
    nothing = np.full(others, LONG_AGO)
    return Records(
        append=np.concatenate(appends)[order],
        window=np.concatenate([messages.window, nothing])[order],
        time=np.concatenate([messages.time, nothing])[order],
        level=np.repeat(levels, np.diff(ticked, prepend=0, append=count + others)),
    ), place[:count]


def _ints(numbers: Iterable[int]) -> Ints:
    return np.fromiter(numbers, np.int64)
