"""Whether this process does its work: claimed or subscribed, epochs ending, commits made, nobody waited for.

Fed by sources (parts, epochs), sinks (commits) and whatever waits for a server that is away; asked by ``/ready``, by
``/metrics`` and through them by the supervisor.

Rule: the clock enters as an argument; one lock; nothing here waits. An epoch ends in a few hundred milliseconds, also
where nothing comes, so its age is the heartbeat of the engine, of every step and of every server that a step waits for.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from connectors.metering import REGISTRY

WAITING_SECS_MAX: Final = 5.0  # a server that is away for longer makes a process unready


@dataclass(frozen=True, slots=True)
class Limits:
    """How old what may be in a process that is ready."""

    epoch_age_max_secs: float = 10.0
    commit_age_max_secs: float = 60.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A server that is away: for how long it is, and for how long it may be before the process gives up."""

    secs: float
    at_most_secs: float


@dataclass(frozen=True, slots=True)
class Report:
    """The state of the process now; ``reasons`` why it is not ready, none where it is."""

    flow: str
    reasons: Sequence[str]
    parts: int
    epoch_age_secs: float  # of the part whose last epoch ended longest ago; before any, since the process began
    uncommitted_secs: float  # how long the oldest record that was read waits for its commit
    waiting: dict[str, Waiting]

    @property
    def ready(self) -> bool:
        return not self.reasons


@dataclass(slots=True)
class _Part:
    epoch_ended_at: float
    opened: bool = False


@dataclass(slots=True)
class _Commits:
    """One partition: what was read last, what is committed, since when something read is not."""

    flow: str
    topic: str
    partition: int
    position: int
    committed_at: float
    read: int = 0
    uncommitted_since: float | None = None


@dataclass(slots=True)
class _Wait:
    since: float
    at_most_secs: float
    waiters: set[int] = field(default_factory=set)  # threads


class Health:
    """The health of one process. All calls are safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self.flow = ""
        self.limits = Limits()
        self._parts: dict[str, _Part] = {}
        self._commits: dict[tuple[str, int], _Commits] = {}
        self._waits: dict[str, _Wait] = {}
        self._doubts: dict[str, tuple[float, float]] = {}  # server → since when, until when

    # Of sources.

    def built(self, part: str) -> None:
        """The engine made a source part; it is not claimed or subscribed yet."""
        with self._lock:
            self._parts[part] = _Part(self._clock())

    def opened(self, part: str) -> None:
        """The part has its claim, or its subscription."""
        with self._lock:
            self._parts[part].opened = True

    def epoch_ended(self, part: str) -> None:
        with self._lock:
            if part in self._parts:
                self._parts[part].epoch_ended_at = self._clock()

    def closed(self, part: str) -> None:
        with self._lock:
            self._parts.pop(part, None)

    # Of commits.

    def claimed(self, flow: str, topic: str, partition: int, position: int) -> None:
        with self._lock:
            self._commits[topic, partition] = _Commits(flow, topic, partition, position, self._clock(), position)

    def read(self, topic: str, partition: int, end: int) -> None:
        """All below ``end`` was handed on."""
        with self._lock:
            if (found := self._commits.get((topic, partition))) is None:
                return
            found.read = max(found.read, end)
            if found.uncommitted_since is None and end > found.position:
                found.uncommitted_since = self._clock()

    def committed(self, topic: str, partition: int, position: int) -> None:
        """What was read after ``position`` counts as read now: an epoch younger than it is, at most."""
        with self._lock:
            if (found := self._commits.get((topic, partition))) is None:
                return
            now = self._clock()
            found.position, found.committed_at = position, now
            found.uncommitted_since = now if found.read > position else None

    # Of servers.

    def away(self, server: str, at_most_secs: float) -> None:
        """The calling thread waits for ``server``, since its first call until ``back``; for so long at most."""
        with self._lock:
            wait = self._waits.setdefault(server, _Wait(self._clock(), at_most_secs))
            wait.waiters.add(threading.get_ident())

    def back(self, server: str) -> None:
        """The calling thread waits for ``server`` no longer, or never did."""
        with self._lock:
            if (wait := self._waits.get(server)) is not None:
                wait.waiters.discard(threading.get_ident())
                if not wait.waiters:
                    del self._waits[server]

    def doubt(self, server: str, secs: float) -> None:
        """A client in the background cannot reach ``server``; that stands for ``secs``, unless it is said again."""
        with self._lock:
            now = self._clock()
            since, until = self._doubts.get(server, (now, now))
            self._doubts[server] = (since if now <= until else now, now + secs)

    def trust(self, server: str) -> None:
        """``server`` has just answered."""
        if server in self._doubts:
            with self._lock:
                self._doubts.pop(server, None)

    def doubts(self, server: str) -> bool:
        """Whether ``server`` cannot be reached, as far as is known."""
        with self._lock:
            return self._clock() < self._doubts.get(server, (0.0, -math.inf))[1]

    # For whoever asks.

    def report(self) -> Report:
        with self._lock:
            now = self._clock()
            ages = [now - part.epoch_ended_at for part in self._parts.values()] or [now - self._began]
            waits = [now - one.uncommitted_since for one in self._commits.values() if one.uncommitted_since is not None]
            waiting = {n: Waiting(now - since, math.inf) for n, (since, until) in self._doubts.items() if now < until}
            waiting |= {name: Waiting(now - wait.since, wait.at_most_secs) for name, wait in self._waits.items()}
            unopened = sorted(name for name, part in self._parts.items() if not part.opened)
            found = (len(self._parts), max(ages), max(waits, default=0.0), waiting)
        return Report(self.flow, tuple(self._reasons(unopened, *found)), *found)

    def _reasons(
        self, unopened: list[str], parts: int, epoch_age: float, uncommitted: float, waiting: dict[str, Waiting]
    ) -> Iterator[str]:
        if not parts:
            yield f"starting for {epoch_age:.0f} s: no part of the input is open yet"
        if unopened:
            yield f"not claimed or subscribed yet: {', '.join(unopened)}"
        for name, wait in waiting.items():
            if wait.secs > WAITING_SECS_MAX:
                yield f"waiting for {name} for {wait.secs:.0f} s"
        if parts and epoch_age > self.limits.epoch_age_max_secs:
            yield f"no epoch has ended for {epoch_age:.0f} s"
        if uncommitted > self.limits.commit_age_max_secs:
            yield f"what was read {uncommitted:.0f} s ago is not committed"

    def commits(self) -> list[tuple[tuple[str, str, str], float, float, int]]:
        """Labels of each partition, seconds since its last commit, and what is uncommitted: for how long, how many."""
        with self._lock:
            now = self._clock()
            return [
                (
                    (one.flow, one.topic, str(one.partition)),
                    now - one.committed_at,
                    0.0 if one.uncommitted_since is None else now - one.uncommitted_since,
                    max(0, one.read - one.position),
                )
                for one in self._commits.values()
            ]


HEALTH: Final = Health()
"""That of this process."""


class _Ages(Collector):
    """Ages, as they are when Prometheus asks."""

    def collect(self) -> Iterator[Metric]:
        report = HEALTH.report()
        flow = [report.flow]
        ready = GaugeMetricFamily("ionwax_ready", "1 while /ready says so.", labels=["flow"])
        ready.add_metric(flow, int(report.ready))
        yield ready
        epoch = GaugeMetricFamily(
            "ionwax_epoch_age_seconds", "Since the oldest part's last epoch ended.", labels=["flow"]
        )
        epoch.add_metric(flow, report.epoch_age_secs)
        yield epoch
        parts = GaugeMetricFamily(
            "ionwax_source_parts", "Partitions or MQTT clients that this process has.", labels=["flow"]
        )
        parts.add_metric(flow, report.parts)
        yield parts
        away = GaugeMetricFamily("ionwax_waiting_seconds", "For a server that is away.", labels=["flow", "server"])
        for server, wait in report.waiting.items():
            away.add_metric([*flow, server], wait.secs)
        yield away
        labels = ["flow", "topic", "partition"]
        commit = GaugeMetricFamily("ionwax_commit_age_seconds", "Since the last commit, or the claim.", labels=labels)
        waits = GaugeMetricFamily(
            "ionwax_uncommitted_age_seconds", "Since the oldest uncommitted record was read; 0 for none.", labels=labels
        )
        records = GaugeMetricFamily(
            "ionwax_log_uncommitted_records", "Offsets of the log that were read and not committed.", labels=labels
        )
        for values, commit_secs, uncommitted_secs, uncommitted in HEALTH.commits():
            commit.add_metric(values, commit_secs)
            waits.add_metric(values, uncommitted_secs)
            records.add_metric(values, uncommitted)
        yield commit
        yield waits
        yield records


REGISTRY.register(_Ages())
