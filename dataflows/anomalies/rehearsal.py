"""A rule tried on a history: what the engine would have said of it, and which episodes other levels and times had made.

Rule: scores come from the engine's own lane, one window after the other, empty ones too; for an outage of the pipeline
nobody looks. They do not hang on the levels and times that make episodes of them, so those can be swept over one
rehearsal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from dataflows.anomalies.episodes import NEVER, Episodes
from dataflows.anomalies.known import Known
from dataflows.anomalies.lane import Lane, Said, Window
from dataflows.anomalies.watch import MINUTE_MS, Watch

SAID = pl.Schema(
    {
        "bucket": pl.Int64(),
        "device_id": pl.String(),
        "metric": pl.String(),
        **dict.fromkeys(("value", "score", "expected", "lower", "upper"), pl.Float64()),
    }
)
EPISODES = pl.Schema(
    {
        "device_id": pl.String(),
        "metric": pl.String(),
        "opened": pl.Int64(),
        "closed": pl.Int64(),  # null where the history ended first
        "peak": pl.Float64(),
    }
)


@dataclass(frozen=True)
class Rehearsal:
    """What was said, by window, and of whom, by slot: (device, metric); a metric of "" is the device as a whole."""

    watch: Watch
    subjects: Sequence[tuple[str, str]]
    windows: Sequence[Said]

    def frame(self) -> pl.DataFrame:
        """A row for each subject and window that was judged (``SAID``), by time."""
        if not any(len(said.slots) for said in self.windows):
            return pl.DataFrame(schema=SAID)
        starts = [np.full(len(said.slots), said.start) for said in self.windows]
        parts = {"bucket": np.concatenate(starts)}
        for name in ("slots", "value", "score", "expected", "lower", "upper"):
            parts[name] = np.concatenate([getattr(said, name) for said in self.windows])
        rows = pl.DataFrame(parts)
        devices, metrics = (pl.Series([subject[at] for subject in self.subjects]) for at in (0, 1))
        slots = rows["slots"]
        whole = rows.with_columns(devices.gather(slots).alias("device_id"), metrics.gather(slots).alias("metric"))
        return whole.select(SAID.names()).cast(SAID)

    def episodes(self, **changed: float) -> pl.DataFrame:
        """The episodes (``EPISODES``), by opening; with other levels or times of the watch where they are given."""
        watch = replace(self.watch, **changed)  # type: ignore[arg-type]
        episodes = Episodes(watch, len(self.subjects))
        rows: list[tuple[str, str, int, int | None, float]] = []
        for said in self.windows:
            turn = episodes.turn(said.start, said.end, said.slots, said.score, ~np.isnan(said.value), True)
            for slot, opened in zip(turn.closing.tolist(), turn.opened.tolist(), strict=True):
                rows.append((*self.subjects[slot], opened, said.end, float(episodes.arrays["peak"][slot])))
        at = episodes.arrays
        rows += [
            (*self.subjects[slot], int(at["opened"][slot]), None, float(at["peak"][slot]))
            for slot in np.flatnonzero(at["opened"] != NEVER).tolist()
        ]
        return pl.DataFrame(rows, schema=EPISODES, orient="row").sort("opened", "device_id", "metric")


def rehearse(watch: Watch, rollups: pl.DataFrame, length_ms: int = MINUTE_MS) -> Rehearsal:
    """Let ``watch`` judge ``rollups``, window after window: columns of ``ROLLUPS``, each series and window once."""
    known, lane = Known(2**60, len(rollups) + 1), Lane(watch)
    names = rollups.select("device_id", "metric").unique().sort("device_id", "metric")
    known.add(names["device_id"].to_list(), names["metric"].to_list())
    lane.admit(known)
    windows = [lane.judge(window, may_open=True)[0] for window in _windows(rollups, known, length_ms)]
    subjects = [
        (known.devices[number], "") if lane.by_device else (known.device_id[number], known.metric[number])
        for number in lane.subject
    ]
    return Rehearsal(watch, subjects, windows)


def _windows(rollups: pl.DataFrame, known: Known, length_ms: int) -> Iterator[Window]:
    """All windows from the first rollup to the last, those without one too."""
    if rollups.is_empty():
        return
    rows = rollups.with_columns(known.find(rollups).alias("series")).sort("bucket", "series")
    columns = [rows[name].to_numpy() for name in ("series", "mean", "m2", "min", "max", "count")]
    bucket = rows["bucket"].to_numpy()
    starts = np.arange(bucket[0], bucket[-1] + length_ms, length_ms)
    for start, begin, end in zip(starts.tolist(), *np.searchsorted(bucket, [starts, starts + length_ms]), strict=True):
        series, mean, m2, low, high, count = (column[begin:end] for column in columns)
        never = np.zeros(end - begin, np.int64)
        yield Window(start, start + length_ms, series, mean, m2, low, high, count, never)
