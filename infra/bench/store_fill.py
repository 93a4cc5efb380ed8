"""Rollup rows by the million, as `minute_rollups` commits them: outcomes of many minutes, with a few late readings.

The newest day is filled first, then the day before it, and so on: what people ask of the last hour or week is there
from the start, and it is the past that grows. Values wander by the hour of the day, have two decimals as sensors send
them, and are drawn from one seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from schemas.aggregates import ROLLUPS
from schemas.frames import LATE
from schemas.log import Outcome
from schemas.progress import Counts, Progress
from schemas.record import Record

MINUTE_MS: Final = 60_000
DAY_MINUTES: Final = 1_440
METRICS: Final = ("humidity", "power", "pressure", "temperature")
READINGS_A_ROW: Final = 60
LATE_A_ROW: Final = 0.001


class Dropped:
    """A publisher that counts what it is given: Kafka is measured elsewhere."""

    def __init__(self) -> None:
        self.records = 0

    def send_all(self, records: Sequence[Record]) -> None:
        self.records += len(records)

    def flush(self) -> None:
        """Nothing to wait for."""


@dataclass
class Fill:
    """Makes one outcome after the other; ``end_ms`` is a whole minute, where the newest day ends."""

    devices: int
    end_ms: int
    rows_a_commit: int
    rows: int = 0
    _draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def __post_init__(self) -> None:
        names = [f"device-{i:05}" for i in range(self.devices)]
        self._series = pl.DataFrame(
            {
                "device_id": np.repeat(names, len(METRICS)),
                "metric": list(METRICS) * self.devices,
                "level": self._draw.normal(20, 5, self.devices * len(METRICS)),
            }
        )
        self._minutes = max(self.rows_a_commit // len(self._series), 1)
        self._at = self._day_end = self.end_ms
        self._at -= DAY_MINUTES * MINUTE_MS
        self._position = 0

    @property
    def progress(self) -> Progress:
        """All is closed, always: it is the past that is filled in."""
        return Progress(self._position, self._position, 0, closed_until=self.end_ms)

    @property
    def rows_a_day(self) -> int:
        return len(self._series) * DAY_MINUTES

    @property
    def days(self) -> float:
        """How much of the past is there."""
        return self.rows / self.rows_a_day

    def next(self) -> Outcome:
        """Some minutes of all series."""
        starts = np.arange(self._at, min(self._at + self._minutes * MINUTE_MS, self._day_end), MINUTE_MS)
        rollups = self._rollups(starts)
        late = self._late(rollups)
        messages = len(rollups) * READINGS_A_ROW // len(METRICS) + len(late)
        self._position += messages
        self.rows += len(rollups)
        self._at = int(starts[-1]) + MINUTE_MS
        if self._at == self._day_end:
            self._day_end -= DAY_MINUTES * MINUTE_MS
            self._at = self._day_end - DAY_MINUTES * MINUTE_MS
        counted = len(rollups) * READINGS_A_ROW
        counts = Counts(messages=messages, readings=counted + len(late), counted=counted, late=len(late))
        return Outcome(0, rollups, late, [int(s) + MINUTE_MS for s in starts], (), counts, self.progress)

    def _rollups(self, starts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pl.DataFrame:
        series, minutes = len(self._series), len(starts)
        day = np.repeat(np.sin(starts / MINUTE_MS / DAY_MINUTES * 2 * np.pi), series) * 3
        mean = np.tile(self._series["level"].to_numpy(), minutes) + day + self._draw.normal(0, 0.3, series * minutes)
        spread = self._draw.exponential(0.5, series * minutes)
        bucket = np.repeat(starts, series)
        return pl.DataFrame(
            {
                "bucket": bucket,
                "device_id": pl.concat([self._series["device_id"]] * minutes),
                "metric": pl.concat([self._series["metric"]] * minutes),
                "count": np.full(series * minutes, READINGS_A_ROW),
                "mean": mean,
                "m2": spread * spread * (READINGS_A_ROW - 1),
                "min": (mean - 2 * spread).round(2),
                "max": (mean + 2 * spread).round(2),
                "first": (mean - spread).round(2),
                "last": (mean + spread).round(2),
                "first_ts": bucket + 13,
                "last_ts": bucket + 59_013,
            },
            schema=ROLLUPS,
        )

    def _late(self, rollups: pl.DataFrame) -> pl.DataFrame:
        some = rollups.sample(int(len(rollups) * LATE_A_ROW), seed=self._position + 1)
        offsets = pl.int_range(self._position, self._position + len(some), eager=True)
        return some.select(
            offsets.alias("offset"),
            (pl.col("bucket") + 600_000).alias("append_time"),
            (pl.col("bucket") + 500).alias("event_time"),
            "bucket",
            "device_id",
            "metric",
            pl.col("mean").alias("value"),
        ).cast(LATE)
