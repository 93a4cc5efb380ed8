"""Flags and episodes as others see them: ``AnomalyFlag`` records for Kafka, alerts for MQTT.

Rule: pure; what is told is a function of the flags. What opens of one device in one window is one alert, and so is what
closes: its ``idempotency_key`` is the id of the gravest episode, and the phase. Whoever is told twice knows it.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from schemas.anomaly_flag_pb2 import AnomalyFlag
from schemas.flags import Episode, Flag, Judged
from schemas.record import Record
from schemas.rules import SEVERITIES

PIPELINE_LEVEL: Final = "%pipeline"
"""Stands for the device where the pipeline itself is meant; no device id is ever written so."""

_UNSAFE: Final = re.compile("[+#/%\0]|^\\$")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Alert(NamedTuple):
    """One message to people: episodes of a device that opened or closed, at ``at_ms``, the end of their window."""

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
    """What to tell people of episodes that opened or closed: a message a device, window and phase, in their order."""
    together: dict[tuple[str, str, int], list[Episode]] = {}
    for one in episodes:
        together.setdefault((one.flag.device_id, one.phase, _at_ms(one, length_ms)), []).append(one)
    return [
        Alert(topic_of(template, device_id), _told(sorted(some, key=_gravest_first)), at_ms)
        for (device_id, _, at_ms), some in together.items()
    ]


def topic_of(template: str, device_id: str) -> str:
    """The topic of a device's alerts: what cannot stand in a level is written as %2B and so on."""
    level = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", device_id) or PIPELINE_LEVEL
    return template.replace("{device_id}", level)


def _at_ms(episode: Episode, length_ms: int) -> int:
    """The end of the window that opened or closed it."""
    return episode.flag.bucket + length_ms if episode.closed is None else episode.closed


def _gravest_first(episode: Episode) -> tuple[int, float, str]:
    return -SEVERITIES.index(episode.flag.severity), -episode.peak, episode.episode_id


def _told(episodes: Sequence[Episode]) -> bytes:
    """The alert's payload: the first episode, and the others, where there are any, as ``also``."""
    first, *others = episodes
    told = {
        "idempotency_key": f"{first.episode_id}/{first.phase}",
        "phase": first.phase,
        "device_id": first.flag.device_id,
        **_described(first),
    }
    return msgspec.json.encode(told | ({"also": [_described(one) for one in others]} if others else {}))


def _described(episode: Episode) -> dict[str, Any]:
    flag = episode.flag
    told: dict[str, Any] = {
        "episode_id": episode.episode_id,
        "metric": flag.metric,
        "detector": flag.detector,
        "severity": flag.severity,
        "opened_at": _instant(flag.bucket),
        "score": episode.peak,
        "params_version": flag.params_version,
    }
    if episode.closed is None:
        return told | {name: getattr(flag, name) for name in ("value", "expected", "lower", "upper")}
    return told | {"closed_at": _instant(episode.closed), "cause": episode.cause}


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
