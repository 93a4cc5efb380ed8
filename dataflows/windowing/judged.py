"""Messages of a slice with what their times mean, and the frames of those that do not reach a window.

Rule: judgement is by record, never by slice: by the limits in force at its offset, and by what had closed before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from dataflows.windowing.columns import Columns, Ints, Mask
from dataflows.windowing.limits import Limits, Verdict
from dataflows.windowing.spans import Spans
from schemas.frames import LATE
from schemas.log import Refused

NO_LATE: Final = LATE.to_frame()


@dataclass(frozen=True, slots=True)
class Judged:
    """Messages, in the order of the log, and beside each its window (start, ms) and the verdict of the limits."""

    messages: pl.DataFrame
    columns: Columns
    windows: Ints
    verdicts: npt.NDArray[np.int8]
    accepted: Mask

    @classmethod
    def by(cls, limits: Limits, spans: Spans, messages: pl.DataFrame) -> "Judged":
        """Judge a frame of messages (``schemas.frames.MESSAGES``)."""
        columns = Columns.of(messages)
        verdicts = limits.judge(columns.offset, columns.append, columns.event)
        windows = columns.event // spans.length * spans.length
        return cls(messages, columns, windows, verdicts, verdicts == Verdict.ACCEPTED)

    @property
    def readings(self) -> int:
        """Readings in accepted messages."""
        return int(self.columns.size[self.accepted].sum())

    def late_rows(self, late: Mask) -> pl.DataFrame:
        """The readings of late messages (``schemas.frames.LATE``)."""
        if not late.any():
            return NO_LATE
        return (
            self.messages.with_columns(pl.Series("bucket", self.windows))
            .filter(pl.Series(late))
            .explode("metric", "value", empty_as_null=False)
            .select(LATE.names())
        )

    def refusals(self, refused: Sequence[Refused]) -> Sequence[Refused]:
        """Those of the slice and those of the limits, by offset. A message refused whole is refused once.

        The limits know no payload: theirs is ``b""``, except where the slice had refused a part of the message.
        """
        wrong = np.flatnonzero(self.verdicts)
        if not len(wrong):
            return refused
        told = {one.offset: one for one in refused}
        for index in wrong.tolist():
            one = self._refusal(index)
            partly = told.get(one.offset)
            if partly is not None:
                one = replace(one, payload=partly.payload, detail=f"{one.detail}; {partly.reason}: {partly.detail}")
            told[one.offset] = one
        return [told[offset] for offset in sorted(told)]

    def _refusal(self, index: int) -> Refused:
        columns = self.columns
        offset, append, event = (int(of[index]) for of in (columns.offset, columns.append, columns.event))
        detail = f"event time {event} is {event - append:+} ms from append time {append}"
        return Refused(offset, append, Verdict(int(self.verdicts[index])).reason, detail, b"")
