"""Flags and episodes as others see them: ``AnomalyFlag`` records for Kafka, alerts for MQTT.

Rule: pure; what is told is a function of the flags. An alert's ``idempotency_key`` is the episode's id and the phase:
whoever is told twice knows it.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from schemas.anomaly_flag_pb2 import AnomalyFlag
from schemas.flags import Episode, Flag, Judged
from schemas.record import Record

PIPELINE_LEVEL: Final = "%pipeline"
"""Stands for the device where the pipeline itself is meant; no device id is ever written so."""

_UNSAFE: Final = re.compile("[+#/%\0]|^\\$")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Alert(NamedTuple):
    """One message to people: an episode that opened or closed, at ``at_ms``, the end of the window that did it."""

    topic: str
    payload: bytes
    at_ms: int


def records(judged: Judged, topic: str, length_ms: int, partition: int | None = None) -> Iterator[Record]:
    """All that ``judged`` tells, in its order, keyed by device; an episode that opens is told by its flag."""
    opening = {one.episode_id: one.flag for one in judged.episodes if one.phase == "open"}
    for flag in judged.flags:
        opens = flag.episode_id is not None and opening.get(flag.episode_id) == flag
        if opens:
            del opening[flag.episode_id or ""]
        yield _record(flag, AnomalyFlag.OPEN if opens else AnomalyFlag.UPDATE, topic, length_ms, partition)
    for flag in opening.values():
        yield _record(flag, AnomalyFlag.OPEN, topic, length_ms, partition)
    for one in judged.episodes:
        if one.closed is not None:
            last = one.flag._replace(
                bucket=one.closed - length_ms, score=0.0, value=None, expected=None, lower=None, upper=None
            )
            yield _record(last, AnomalyFlag.CLOSE, topic, length_ms, partition, one.cause or "")


def alerts(episodes: Sequence[Episode], template: str, length_ms: int) -> list[Alert]:
    """What to tell people of episodes that opened or closed."""
    return [_alert(one, template, length_ms) for one in episodes]


def topic_of(template: str, device_id: str) -> str:
    """The topic of a device's alerts: what cannot stand in a level is written as %2B and so on."""
    level = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", device_id) or PIPELINE_LEVEL
    return template.replace("{device_id}", level)


def _alert(episode: Episode, template: str, length_ms: int) -> Alert:
    flag = episode.flag
    at_ms = flag.bucket + length_ms if episode.closed is None else episode.closed
    told: dict[str, Any] = {
        "idempotency_key": f"{episode.episode_id}/{episode.phase}",
        "phase": episode.phase,
        "episode_id": episode.episode_id,
        "device_id": flag.device_id,
        "metric": flag.metric,
        "detector": flag.detector,
        "severity": flag.severity,
        "opened_at": _instant(flag.bucket),
        "score": episode.peak,
        "params_version": flag.params_version,
    }
    if episode.closed is None:
        told |= {name: getattr(flag, name) for name in ("value", "expected", "lower", "upper")}
    else:
        told |= {"closed_at": _instant(episode.closed), "cause": episode.cause}
    return Alert(topic_of(template, flag.device_id), msgspec.json.encode(told), at_ms)


def _instant(ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="seconds").replace("+00:00", "Z")


def _record(
    flag: Flag, phase: AnomalyFlag.Phase, topic: str, length_ms: int, partition: int | None, cause: str = ""
) -> Record:
    value = AnomalyFlag(
        phase=phase,
        bucket=flag.bucket,
        length_ms=length_ms,
        device_id=flag.device_id,
        metric=flag.metric,
        detector=flag.detector,
        severity=flag.severity,
        score=flag.score,
        value=flag.value,
        expected=flag.expected,
        lower=flag.lower,
        upper=flag.upper,
        episode_id=flag.episode_id or "",
        params_version=flag.params_version,
        revision=flag.revision,
        cause=cause,
    )
    return Record(topic, value.SerializeToString(), flag.device_id.encode(), partition=partition)
