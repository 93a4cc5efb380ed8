"""Whether a resumed session is still giving out what waited in it: no ticks before that is over.

``connectors.mqtt_gauge`` sees a backlog by the broker's full window. A broker that lets many messages be in flight, or
sends on one thread and answers a PINGREQ on another (Artemis), never fills it: a backlog of 14,400 messages let ticks
through in the midst of it, and all that came behind them was late. What such a broker does show is haste: what waited
comes as fast as it can be sent, what devices say now comes as they say it. So a resumed session does not tick until
arrivals have calmed down.

Where it errs: devices that by themselves send at a quarter of what the broker can, or more, look like a backlog; then
ticks begin ``PATIENCE_MS`` after the session was resumed. A broker that pauses for a second in the midst of a backlog
looks calm; readings behind that tick are late and revise their rows.
"""

from typing import Final

SAMPLE_MS: Final = 500
CALM_SAMPLES: Final = 2  # in a row
CALM_SHARE: Final = 0.25  # of the busiest sample
SLOW_PER_SEC: Final = 100.0  # nothing that waits comes so slowly
PATIENCE_MS: Final = 60_000


class Backlog:
    """Fed with the time (ms) and the number of messages received so far. Pure: no clock."""

    def __init__(self, now_ms: int, received: int) -> None:
        self._begun_ms = self._sampled_ms = now_ms
        self._received = received
        self._busiest = 0.0
        self._calm = 0

    def over(self, now_ms: int, received: int) -> bool:
        """Whether ticks may begin; once they may, they may."""
        elapsed_ms = now_ms - self._sampled_ms
        if elapsed_ms >= SAMPLE_MS and self._calm < CALM_SAMPLES:
            rate = (received - self._received) * 1_000 / elapsed_ms
            self._busiest = max(self._busiest, rate)
            self._calm = self._calm + 1 if rate < max(CALM_SHARE * self._busiest, SLOW_PER_SEC) else 0
            self._sampled_ms, self._received = now_ms, received
        return self._calm >= CALM_SAMPLES or abs(now_ms - self._begun_ms) >= PATIENCE_MS
