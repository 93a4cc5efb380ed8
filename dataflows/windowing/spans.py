"""The settings of the core in the core's own unit, whole milliseconds, and the ends of time."""

from dataclasses import dataclass
from typing import Final

from schemas.settings import WindowSettings

FOREVER_MS: Final = 1 << 60  # longer than any log; sums with a time stay within 64 bits
NEVER: Final = 1 << 62  # later than every time
LONG_AGO: Final = -(1 << 62)  # earlier than every time


@dataclass(frozen=True, slots=True)
class Spans:
    """Lengths of time in ms; settings have checked their domains, and that ``length`` divides a day."""

    length: int
    allowed_lateness: int
    clock_skew_max: int
    quiet: int
    patience: int
    event_age_max: int

    @classmethod
    def of(cls, settings: WindowSettings) -> "Spans":
        return cls(
            length=settings.length_secs * 1000,
            allowed_lateness=round(settings.allowed_lateness_secs * 1000),
            clock_skew_max=round(settings.clock_skew_max_secs * 1000),
            quiet=round(settings.quiet_secs * 1000),
            patience=round(settings.patience_secs * 1000),
            event_age_max=round(settings.event_age_max_secs * 1000),
        )

    def boundary(self, time: int) -> int:
        """The newest window end whose allowed lateness has passed at ``time``."""
        return (time - self.allowed_lateness) // self.length * self.length
