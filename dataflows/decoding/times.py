"""Event times: what a payload may write, and which of them ingest takes.

A ``ts`` is a number of milliseconds since the Unix epoch (a fraction is dropped, towards the past) or a string in
RFC 3339 with its offset from UTC. Nothing is guessed: seconds sent by mistake are an instant of 1970, and are refused
as too old; the detail says what they look like.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dataflows.decoding.reasons import Flaw, Reason, shown
from schemas.settings import WindowSettings

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
# RFC 3339, section 5.6; its note allows a space for the T, and lower case. Seconds of 60 are leap seconds.
_RFC_3339: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
RFC_3339_CHARS_MAX: Final = 64

TIME_MIN_MS: Final = -62_135_596_800_000  # 0001-01-01T00:00:00Z
TIME_MAX_MS: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
"""Times outside cannot be written as a date, here or in PostgreSQL, and their differences may overflow."""


def event_time(ts: object) -> int | Flaw:
    """Milliseconds since the epoch as ``ts`` (a JSON value, not null) says; any integer, however far away."""
    if isinstance(ts, bool):
        return Flaw(Reason.BAD_TIMESTAMP, f"ts is {shown(ts)}, not a time")
    if isinstance(ts, int):
        return ts
    if isinstance(ts, float):
        return math.floor(ts) if math.isfinite(ts) else Flaw(Reason.BAD_TIMESTAMP, "ts is not finite")
    if isinstance(ts, str):
        return _rfc_3339(ts)
    return Flaw(Reason.BAD_TIMESTAMP, f"ts is {shown(ts)}; epoch milliseconds or RFC 3339 are taken")


def _rfc_3339(text: str) -> int | Flaw:
    match = _RFC_3339.fullmatch(text) if len(text) <= RFC_3339_CHARS_MAX else None
    if match is None:
        hint = "digits in a string; send a number" if text.strip().isdecimal() else "not RFC 3339 with an offset"
        return Flaw(Reason.BAD_TIMESTAMP, f"ts is {shown(text)}: {hint}")
    date, minute, second, fraction, offset = match.groups()
    leap = second == "60"
    try:
        instant = datetime.fromisoformat(f"{date}T{minute}:{'59' if leap else second}{offset.upper()}")
    except ValueError as error:
        return Flaw(Reason.BAD_TIMESTAMP, f"ts is {shown(text)}: {error}")
    milliseconds = int((fraction or "0").ljust(3, "0")[:3])
    return (instant - _EPOCH) // _MILLISECOND + (1000 if leap else 0) + milliseconds


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How far from its ingest time an event time may be, in milliseconds."""

    clock_skew_max_ms: int
    event_age_max_ms: int

    @classmethod
    def of(cls, windows: WindowSettings) -> "TimeLimits":
        return cls(round(windows.clock_skew_max_secs * 1000), round(windows.event_age_max_secs * 1000))

    def flaw_in(self, ts: int, ingest_time: int) -> Flaw | None:
        """Why an event of ``ts`` that arrived at ``ingest_time`` is refused; None where it is taken."""
        if ts > ingest_time + self.clock_skew_max_ms:
            words = f"{_date(ts)}, {_span(ts - ingest_time)} ahead of its arrival{self._hint(ts, ingest_time)}"
            return Flaw(Reason.TIMESTAMP_IN_FUTURE, words)
        if ts < ingest_time - self.event_age_max_ms:
            words = f"{_date(ts)}, {_span(ingest_time - ts)} before its arrival{self._hint(ts, ingest_time)}"
            return Flaw(Reason.TIMESTAMP_TOO_OLD, words)
        return None

    def _hint(self, ts: int, ingest_time: int) -> str:
        """A likely mistake: the unit in which ``ts`` would have been taken."""
        units = (("seconds", ts * 1000), ("microseconds", ts // 1000), ("nanoseconds", ts // 1_000_000))
        for unit, meant in units:
            if ingest_time - self.event_age_max_ms <= meant <= ingest_time + self.clock_skew_max_ms:
                return f"; {unit} by mistake? Milliseconds are taken"
        return ""


def _date(ts: int) -> str:
    if not TIME_MIN_MS <= ts <= TIME_MAX_MS:
        return f"ts is {shown(ts)}, outside the years 1 to 9999"
    return f"ts {ts} is {(_EPOCH + ts * _MILLISECOND).isoformat(timespec='milliseconds').replace('+00:00', 'Z')}"


def _span(ms: int) -> str:
    if ms >= 172_800_000:
        return f"{shown(ms // 86_400_000)} days"
    return f"{ms / 1000:g} s"
