"""How long to wait before the next start: twice as long after each failure, never the same twice.

Pure: chance enters as an argument.
"""

from dataclasses import dataclass
from typing import Final

WAIT_SECS_MIN: Final = 0.5
WAIT_SECS_MAX: Final = 30.0
STEADY_SECS: Final = 60.0  # a run that lasted as long was a good one
FAILURES_MAX: Final = 20  # in a row; some nine minutes


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failures in a row so far."""

    failures: int = 0

    def after(self, lasted_secs: float) -> "Backoff":
        """One more run has failed, which had lasted so long."""
        return Backoff(1 if lasted_secs >= STEADY_SECS else self.failures + 1)

    def wait_secs(self, chance: float) -> float:
        """How long to wait now. ``chance`` is of [0, 1); processes that failed together do not come back together."""
        assert self.failures, "nothing has failed"
        longest = min(WAIT_SECS_MIN * 2.0 ** min(self.failures - 1, 30), WAIT_SECS_MAX)
        return longest * (0.5 + chance / 2)

    @property
    def exhausted(self) -> bool:
        """Whether one more start is not worth it."""
        return self.failures >= FAILURES_MAX
