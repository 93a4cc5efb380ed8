"""Flags and episodes by an oracle: slow, obvious, plain Python, and nothing of the engine's in it.

It goes through the log record by record and keeps a dictionary a subject. It asks the same detectors, each for one
subject alone: that detectors judge subjects by themselves is a law of theirs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from dataflows.anomalies.protocol import Rollups, State, blank
from dataflows.anomalies.watch import Watch

MINUTE = 60_000


class Rolled(NamedTuple):
    """A record that is a rollup of one reading or several equal ones."""

    offset: int
    bucket: int
    device: str
    metric: str
    value: float
    count: int = 1
    revision: int = 0


class Closed(NamedTuple):
    offset: int
    end: int


Told = tuple[Any, ...]  # ("flag" | "open" | "close", watch, device, metric, …)


@dataclass
class Subject:
    """One series or device, of one watch."""

    state: State
    heard: int | None = None
    gap: int = 0
    since: int | None = None
    opened: int | None = None
    last: int = 0
    closed: int | None = None
    judged: int = 0
    said: dict[int, dict[str, Any]] = field(default_factory=dict)  # by bucket


class Oracle:
    def __init__(self, watches: Sequence[Watch], length: int = MINUTE) -> None:
        self.watches = watches
        self.length = length
        self.closed_until: int | None = None
        self.waiting: list[Rolled] = []
        self.subjects: dict[tuple[str, str, str], Subject] = {}
        self.presence: dict[str, float] = {}
        self.outage: int | None = None
        self.outage_last = 0

    def take(self, record: Rolled | Closed) -> list[Told]:
        if isinstance(record, Closed):
            return self._close(record.end) if self.closed_until is None or record.end > self.closed_until else []
        if self.closed_until is None or record.bucket >= self.closed_until:
            self.waiting.append(record)
            return []
        return self._revise(record) if record.revision > 0 else []

    def _close(self, end: int) -> list[Told]:
        start = end - self.length
        best: dict[tuple[str, str], Rolled] = {}
        for row in self.waiting:
            key = (row.device, row.metric)
            if row.bucket == start and (key not in best or row.revision >= best[key].revision):
                best[key] = row
        self.waiting = [row for row in self.waiting if end <= row.bucket < end + 60 * self.length]
        self.closed_until = end
        told = self._pipeline(start, end, {device for device, _ in best})
        for watch in self.watches:
            told += self._watch(watch, start, end, best)
        return told

    def _pipeline(self, start: int, end: int, spoke: set[str]) -> list[Told]:
        for device in spoke:
            self.presence.setdefault(device, 0.0)
        asked = [watch for watch in self.watches if watch.outage_share is not None]
        told: list[Told] = []
        if asked:
            share = min(watch.outage_share or 1 for watch in asked)
            close_after = min(watch.close_after_mins for watch in asked) * MINUTE
            regular = [device for device, presence in self.presence.items() if presence >= 0.75]
            silent = [device for device in regular if device not in spoke]
            out = len(regular) >= 4 and len(silent) / len(regular) >= share
            if self.outage is None and out:
                self.outage, self.outage_last = start, end
                told = [("open", "pipeline", "", "", start), ("flag", "pipeline", "", "", start, 0, start)]
            elif self.outage is not None:
                if len(regular) >= 4 and len(silent) / len(regular) >= share / 2:
                    self.outage_last = end
                if end - self.outage_last >= close_after:
                    told = [("close", "pipeline", "", "", self.outage, end, "calm")]
                    self.outage = None
                elif out:
                    told = [("flag", "pipeline", "", "", start, 0, self.outage)]
        if self.outage is None or end - self.outage >= 1440 * MINUTE:
            for device in self.presence:
                self.presence[device] += (float(device in spoke) - self.presence[device]) / 8
        return told

    def _watch(self, watch: Watch, start: int, end: int, best: dict[tuple[str, str], Rolled]) -> list[Told]:
        rows: dict[tuple[str, str], tuple[float, int, int]] = {}
        for (device, metric), row in best.items():
            if any(fnmatchcase(device, one) for one in watch.devices) and any(
                fnmatchcase(metric, one) for one in watch.metrics
            ):
                if watch.subject == "series":
                    rows[device, metric] = (row.value, row.count, row.revision)
                else:
                    count = rows.get((device, ""), (0.0, 0, 0))[1] + row.count
                    rows[device, ""] = (float(count), count, 0)
        for device, metric in rows:
            self.subjects.setdefault((watch.name, device, metric), Subject(blank(watch.detector, 1)))
        told: list[Told] = []
        for (name, device, metric), subject in self.subjects.items():
            if name == watch.name:
                told += self._subject(watch, device, metric, subject, start, end, rows.get((device, metric)))
        return told

    def _subject(
        self,
        watch: Watch,
        device: str,
        metric: str,
        subject: Subject,
        start: int,
        end: int,
        row: tuple[float, int, int] | None,
    ) -> list[Told]:
        who = (watch.name, device, metric)
        told: list[Told] = []
        value, _, revision = row or (math.nan, 0, 0)
        subject.state, scores = watch.detector.step(subject.state, _rollups(start, end, row))
        close_ms = watch.close_after_mins * MINUTE
        if len(scores.series):
            score = float(scores.score[0])
            gap = end - start if subject.heard is None else start - subject.heard
            if subject.since is None or gap > max(close_ms, 2 * subject.gap):
                subject.since = start
            if score < watch.flag_at:
                subject.since = None
            subject.heard, subject.gap = start, gap
            subject.judged += 1
            silence_of_its_own = watch.outage_share is not None and self.outage is not None
            cool = subject.closed is None or end - subject.closed > watch.cool_down_mins * MINUTE
            lasted = subject.since is not None and end - subject.since >= watch.for_mins * MINUTE
            flagged = False
            if subject.opened is None and lasted and cool and not silence_of_its_own:
                subject.opened, subject.last, flagged = start, end, True
                told += [("open", *who, start)]
            elif subject.opened is not None and score >= watch.clear_at:
                subject.last = end
                flagged = row is not None or (end - subject.opened) % (60 * MINUTE) < end - start
            subject.said[start] = {
                "score": score,
                "value": value,
                "lower": float(scores.lower[0]),
                "upper": float(scores.upper[0]),
                "revision": revision,
                "opened": subject.opened if flagged else None,
                "firm": subject.judged > 250 or not watch.detector.unit_free,
            }
            if flagged:
                told.append(("flag", *who, start, revision, subject.opened))
        if subject.opened is not None and end - subject.last >= max(close_ms, 2 * subject.gap):
            told.append(("close", *who, subject.opened, end, "calm"))
            subject.opened, subject.closed = None, end
        subject.said = {
            bucket: said for bucket, said in subject.said.items() if bucket + self.length > end - 15 * MINUTE
        }
        return told

    def _revise(self, row: Rolled) -> list[Told]:
        told: list[Told] = []
        for watch in self.watches:
            subject = self.subjects.get((watch.name, row.device, row.metric))
            said = None if subject is None or watch.subject == "device" else subject.said.get(row.bucket)
            if said is None or math.isnan(said["value"]) or row.revision <= said["revision"]:
                continue
            was_in, is_in = (said["lower"] <= value <= said["upper"] for value in (said["value"], row.value))
            known = not (math.isnan(said["lower"]) or math.isnan(said["upper"]))
            if known and was_in and not is_in and said["firm"]:
                said["score"] = max(said["score"], watch.flag_at)
            elif known and is_in and not was_in:
                said["score"] = 0.0
            said["value"], said["revision"] = row.value, row.revision
            if said["opened"] is not None or said["score"] >= watch.flag_at:
                told.append(("flag", watch.name, row.device, row.metric, row.bucket, row.revision, said["opened"]))
        return told


def _rollups(start: int, end: int, row: tuple[float, int, int] | None) -> Rollups:
    rows = [] if row is None else [row]
    value = np.array([one[0] for one in rows], np.float64)
    return Rollups(
        series=np.zeros(len(rows), np.int64),
        bucket=np.full(len(rows), start, np.int64),
        mean=value,
        m2=np.zeros(len(rows)),
        min=value,
        max=value,
        count=np.array([one[1] for one in rows], np.int64),
        closed_until=end,
    )
