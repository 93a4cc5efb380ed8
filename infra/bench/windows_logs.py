"""Logs to measure with, made in memory: a fleet of devices that each send four metrics in a message.

Event times run behind append times by up to five seconds, so that with ten seconds of allowed lateness nothing is
late in any system; a tick at the end closes every window, as the end of the input does elsewhere.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from schemas.frames import MESSAGES, TICKS
from schemas.log import LogSlice

METRICS: Final = ("temperature", "humidity", "pressure", "battery")
BASE_MS: Final = 1_763_700_000_000
DISORDER_MS: Final = 5_000
WORKER: Final = "ingest-0"


@dataclass(frozen=True)
class Fleet:
    """So many series sending so many readings in so many minutes."""

    series: int
    readings: int
    minutes: int = 5

    @property
    def messages(self) -> int:
        return self.readings // len(METRICS)

    def frame(self) -> pl.DataFrame:
        """All messages, as the decoder hands them on (``schemas.frames.MESSAGES``)."""
        return self.between(0, self.messages)

    def between(self, low: int, high: int) -> pl.DataFrame:
        """Messages of the offsets [low, high). Equal arguments make equal messages."""
        random = np.random.default_rng([1, low])
        count, width = high - low, len(METRICS)
        append = BASE_MS + np.arange(low, high) * self.minutes * 60_000 // self.messages
        devices = pl.Series([f"device-{i:07d}" for i in range(max(self.series // width, 1))])
        return pl.DataFrame(
            {
                "offset": np.arange(low, high),
                "append_time": append,
                "event_time": append - random.integers(0, DISORDER_MS, count),
                "device_id": devices.gather(random.integers(0, len(devices), count)),
                "metric": pl.Series([*METRICS] * count).reshape((count, width)).cast(pl.List(pl.String())),
                "value": pl.Series(random.normal(20, 5, (count, width))).cast(pl.List(pl.Float64())),
            },
            schema=MESSAGES,
        )

    def slices(self, batch: int) -> list[LogSlice]:
        """The log in slices of ``batch`` readings, and a last one that closes every window."""
        frame, step = self.frame(), max(batch // len(METRICS), 1)
        none = TICKS.to_frame()
        parts = [
            LogSlice(0, low, min(low + step, len(frame)), frame.slice(low, step).rechunk(), none)
            for low in range(0, len(frame), step)
        ]
        after = BASE_MS + (self.minutes + 10) * 60_000
        tick = pl.DataFrame([(len(frame), after, WORKER, after)], schema=TICKS, orient="row")
        return [*parts, LogSlice(0, len(frame), len(frame) + 1, MESSAGES.to_frame(), tick)]
