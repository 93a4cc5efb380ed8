"""A rule tried on a history: what the engine would have said of it, and which episodes other levels and times had made.

Rule: scores come from the engine itself, one window after the other, empty ones too. They do not hang on the levels and
times that make episodes of them, so those can be swept over one rehearsal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from dataflows.anomalies.episodes import NEVER, Episodes
from dataflows.anomalies.judge import Judge
from dataflows.anomalies.lane import Said
from dataflows.anomalies.watch import MINUTE_MS, Watch
from schemas.aggregates import ROLLUPS

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
        names = ("value", "score", "expected", "lower", "upper")
        parts = [
            pl.DataFrame({"bucket": said.start, "slot": said.slots, **{name: getattr(said, name) for name in names}})
            for said in self.windows
            if len(said.slots)
        ]
        if not parts:
            return pl.DataFrame(schema=SAID)
        rows = pl.concat(parts)
        devices, metrics = (pl.Series([subject[at] for subject in self.subjects]) for at in (0, 1))
        slots = rows["slot"]
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
    """Let ``watch`` judge ``rollups`` (the columns of ``ROLLUPS``; each series and window once), as windows close."""
    judge = Judge([replace(watch, outage_share=None)], length_ms, forget_after_ms=2**60)
    rows = rollups.select(ROLLUPS.names()).with_columns(pl.lit(0, pl.Int64).alias("revision")).sort("bucket")
    by_window = {int(bucket): part for (bucket,), part in rows.group_by("bucket", maintain_order=True)}
    empty, windows = rows.clear(), list[Said]()
    if len(rows):
        for start in range(int(rows["bucket"][0]), int(rows["bucket"][-1]) + length_ms, length_ms):
            judge.close(by_window.get(start, empty), start + length_ms)
            windows.append(judge.lanes[watch.name].said[-1])
    lane, known = judge.lanes[watch.name], judge.known
    subjects = [
        (known.devices[number], "") if lane.by_device else (known.device_id[number], known.metric[number])
        for number in lane.subject
    ]
    return Rehearsal(watch, subjects, windows)
