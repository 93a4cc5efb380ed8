"""The state of a partition as a snapshot, and back.

Rule: a snapshot is names, numbers and arrays; what a detector of the same name, version and fields learned is taken
over, whatever else of its watch has changed, and the episodes of a watch that has not. So a new rule, or a detector
that scores otherwise now, begins anew, and all others go on.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from dataflows.anomalies.episodes import Episodes
from dataflows.anomalies.judge import Judge
from dataflows.anomalies.lane import Lane, Said
from dataflows.anomalies.protocol import Array, blank
from schemas.flags import Snapshot

_SAID: Final = ("slots", "score", "value", "expected", "lower", "upper", "revision", "opened", "firm")


def snapshot(judge: Judge, resume: int) -> Snapshot:
    """All that ``judge`` knows. Its arrays are shared with nothing that changes."""
    known = judge.known
    facts = {
        "closed_until": judge.closed_until,
        "device_id": list(known.device_id),
        "metric": list(known.metric),
        "outage": dict(judge.outage.times),
        "lanes": [_facts(lane) for lane in judge.lanes.values()],
    }
    arrays: dict[str, Array] = {"last": known.last.copy()}
    arrays |= {f"outage/{name}": array for name, array in judge.outage.arrays().items()}
    for lane in judge.lanes.values():
        arrays |= {f"{lane.watch.name}/{name}": array for name, array in _arrays(lane).items()}
    return Snapshot(resume, facts, arrays)


def restore(judge: Judge, kept: Snapshot) -> None:
    """Give ``judge``, which is new, what ``kept`` says, as far as its watches are those of then."""
    facts, arrays = kept.facts, kept.arrays
    judge.closed_until = facts["closed_until"]
    judge.known.add(list(facts["device_id"]), list(facts["metric"]))
    judge.known.last = np.array(arrays["last"], np.int64)
    judge.outage.times = dict(facts["outage"])
    judge.outage.presence = np.array(arrays["outage/presence"], np.float64)
    former = {lane["name"]: lane for lane in facts["lanes"]}
    for name, lane in judge.lanes.items():
        if name in former and former[name]["subject"] == lane.watch.subject:
            before = _lane(lane, former[name], arrays)
            lane.adopt(judge.known, before.subject, before)
        else:
            lane.admit(judge.known)


def _facts(lane: Lane) -> dict[str, Any]:
    watch = lane.watch
    return {
        "name": watch.name,
        "subject": watch.subject,
        "detector": _detector(lane),
        "params_version": watch.params_version,
        "said": [[said.start, said.end] for said in lane.said],
    }


def _detector(lane: Lane) -> list[str]:
    detector = lane.watch.detector
    fields = sorted(f"{name} {field.shape} {np.dtype(field.dtype)}" for name, field in detector.fields.items())
    return [detector.name, detector.params_version, *fields]


def _arrays(lane: Lane) -> dict[str, Array]:
    found: dict[str, Array] = {"subject": np.array(lane.subject, np.int64)}
    found |= {f"state/{name}": array for name, array in lane.state.items()}
    found |= {f"episodes/{name}": array.copy() for name, array in lane.episodes.arrays.items()}
    for nth, said in enumerate(lane.said):
        found |= {f"said/{nth}/{name}": getattr(said, name).copy() for name in _SAID}
    return found


def _lane(lane: Lane, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Lane:
    """The lane as it was, of ``lane``'s watch: anew where it has changed."""
    name = lane.watch.name
    before = Lane(lane.watch)
    before.subject = arrays[f"{name}/subject"].tolist()
    count = len(before.subject)
    same_detector = facts["detector"] == _detector(lane)
    same_watch = same_detector and facts["params_version"] == lane.watch.params_version
    before.state = blank(lane.watch.detector, count)
    if same_detector:
        before.state = {field: arrays[f"{name}/state/{field}"] for field in before.state}
    before.episodes = Episodes(lane.watch, count)
    if same_watch:
        before.episodes.arrays = {
            field: np.array(arrays[f"{name}/episodes/{field}"]) for field in before.episodes.arrays
        }
        for nth, (start, end) in enumerate(facts["said"]):
            columns = {field: np.array(arrays[f"{name}/said/{nth}/{field}"]) for field in _SAID}
            before.said.append(Said(start, end, **columns))
    return before
