"""The messages of a fleet in the order in which they are due, a stretch of time at a time.

Guarantee: however time is cut into stretches, the messages and their order are the same.
"""

import heapq
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from infra.fleet import payloads
from infra.fleet.faults import ON_THE_WAY, SURGE, afflict
from infra.fleet.plan import Plan
from infra.fleet.signals import Ints, speaking_times, values

STRETCH_MESSAGES: Final = 2_000
"""Messages that one step makes at most, by their average: what the generator holds beside those held back."""

BEFORE_EVERY_MS: Final = 60_000
"""Between two messages of a device before the history begins."""

_BROKEN: Final = ON_THE_WAY.index("broken")
_SPIKE: Final = ON_THE_WAY.index("spike")


class Message(NamedTuple):
    """One PUBLISH to be. Ordered by when it is due, and beyond that by what makes it unique."""

    due_ms: int
    event_ms: int  # the instant of the reading, by a true clock
    device: int
    copy: int  # 1 for the second sending of the same payload
    topic: str
    payload: bytes
    fault: str  # "" where nothing befell it; several are joined by "+"


class Stream:
    """Yields the messages of a plan from ``plan.first_ms`` on. Holds what is held back, and a stretch."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.at_ms = plan.first_ms
        self._calm = replace(plan, faults={name: plan.faults[name] for name in plan.faults if name == "fast-clock"})
        self._names = plan.names()
        self._held: list[Message] = []

    def advance(self, until_ms: int) -> list[Message]:
        """Messages that are due before ``until_ms`` and were not given yet, in order.

        Makes about ``STRETCH_MESSAGES`` and stops there: ``at_ms`` says how far it came, so ask again.
        """
        before = self.at_ms < self.plan.history_ms
        every_ms = BEFORE_EVERY_MS / self.plan.devices if before else 1_000 / self.plan.rate
        until_ms = min(until_ms, self.at_ms + max(1, int(STRETCH_MESSAGES * every_ms)))
        if before:
            until_ms = min(until_ms, self.plan.history_ms)
        if until_ms > self.at_ms:
            self._make(self.at_ms, until_ms)
            self.at_ms = until_ms
        due = []
        while self._held and self._held[0].due_ms < until_ms:
            due.append(heapq.heappop(self._held))
        return due

    def _make(self, start_ms: int, until_ms: int) -> None:
        plan, interval_ms = self.plan, self.plan.interval_ms
        if start_ms < plan.history_ms:
            plan, interval_ms = self._calm, float(BEFORE_EVERY_MS)
        device, at = speaking_times(plan.devices, plan.seed, interval_ms, start_ms, until_ms)
        found = afflict(plan, device, at)
        measured = values(plan.seed, device, found.measured_at)
        measured["pressure"] = np.where(found.surge, np.round(measured["pressure"] + SURGE, 3), measured["pressure"])
        columns = [column.tolist() for column in measured.values()]
        ts = (at + found.clock_ms).tolist()
        rows = zip(device.tolist(), at.tolist(), ts, found.way.tolist(), found.stuck.tolist(), strict=True)
        delays = zip(found.delay_ms.tolist(), found.again_ms.tolist(), found.choice.tolist(), strict=True)
        surging = found.surge.tolist()
        speaking: Ints = np.flatnonzero(~found.silent)
        rows_, delays_, readings = list(rows), list(delays), list(zip(*columns, strict=True))
        for i in speaking.tolist():
            index, event_ms, ts_ms, way, stuck = rows_[i]
            delay_ms, again_ms, choice = delays_[i]
            topic, body, fault = self._render(index, ts_ms, dict(zip(measured, readings[i], strict=True)), way, choice)
            others = ("stuck", stuck), ("surge", surging[i]), ("fast-clock", ts_ms != event_ms)
            fault = "+".join(filter(None, (fault, *(name for name, befalls in others if befalls))))
            first = Message(event_ms + delay_ms, event_ms, index, 0, topic, body, fault)
            heapq.heappush(self._held, first)
            if again_ms >= 0:
                heapq.heappush(self._held, first._replace(due_ms=first.due_ms + again_ms, copy=1))

    def _render(
        self, index: int, ts_ms: int, metrics: dict[str, float], way: int, choice: float
    ) -> tuple[str, bytes, str]:
        topic, device_id = self._names[index]
        if way == _BROKEN:
            kind, body = payloads.broken(self.plan.format, choice, device_id, ts_ms, metrics)
            return topic, body, f"broken:{kind}"
        if way == _SPIKE:
            name = ("temperature", "pressure", "vibration")[int(choice * 3)]
            metrics[name] = round(metrics[name] * 4 + 30, 2)
        body = payloads.payload(self.plan.format, device_id, ts_ms, metrics)
        return topic, body, ON_THE_WAY[way] if way >= 0 else ""
