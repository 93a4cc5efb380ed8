"""The settings of the core in the core's own unit: whole milliseconds."""

from dataclasses import dataclass
from typing import Final

from schemas.errors import OperatorError
from schemas.settings import WindowSettings

DAY_SECS: Final = 86_400
FOREVER_MS: Final = 1 << 60  # longer than any log; sums with a time stay within 64 bits
NEVER: Final = 1 << 62  # later than every time
LONG_AGO: Final = -(1 << 62)  # earlier than every time


@dataclass(frozen=True, slots=True)
class Spans:
    """Lengths of time in ms, each at least 0; ``length`` is at least 1 s and divides a day."""

    length: int
    allowed_lateness: int
    clock_skew_max: int
    quiet: int
    patience: int
    event_age_max: int

    @classmethod
    def of(cls, settings: WindowSettings) -> "Spans":
        """Raises ``OperatorError`` where a setting is out of its domain."""
        length_secs = settings.length_secs
        if length_secs < 1 or DAY_SECS % length_secs:
            raise OperatorError(
                f"windows.length_secs is {length_secs}: windows are aligned to days, so it must be a whole number of "
                f"seconds that divides a day ({DAY_SECS}), as 60, 300 or 3600 do"
            )
        return cls(
            length=length_secs * 1000,
            allowed_lateness=_ms("allowed_lateness_secs", settings.allowed_lateness_secs),
            clock_skew_max=_ms("clock_skew_max_secs", settings.clock_skew_max_secs),
            quiet=_ms("quiet_secs", settings.quiet_secs),
            patience=_ms("patience_secs", settings.patience_secs),
            event_age_max=_ms("event_age_max_secs", settings.event_age_max_secs),
        )

    def window(self, time: int) -> int:
        """Start of the window that holds ``time``."""
        return time // self.length * self.length

    def boundary(self, time: int) -> int:
        """The newest window end whose allowed lateness has passed at ``time``."""
        return self.window(time - self.allowed_lateness)


def _ms(name: str, secs: float) -> int:
    if not secs >= 0:
        raise OperatorError(f"windows.{name} is {secs}: it must be zero or more seconds")
    return min(round(min(secs, FOREVER_MS) * 1000), FOREVER_MS)
