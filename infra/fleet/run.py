"""Running a fleet: the one place where the plan meets a clock, a broker and the record.

What is due is recorded, then sent, then its acknowledgement is recorded. History is due at once, so it goes as fast as
the broker acknowledges; after it the fleet keeps real time, and an outage makes it fall behind and catch up, in order.
"""

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

from infra.fleet.payloads import CONTENT_TYPES
from infra.fleet.plan import Plan
from infra.fleet.publisher import Fates, Publisher
from infra.fleet.record import Writer
from infra.fleet.stream import Message, Stream
from schemas.settings import MqttSettings

TURN_SECS: Final = 0.02
"""How long the fleet rests when nothing is due: messages leave up to this much after they are due."""

DRAIN_SECS_MAX: Final = 10.0
"""How long the end waits for the last acknowledgements."""

REPORT_SECS: Final = 0.5


@dataclass(slots=True)
class Tally:
    """What a fleet has done so far."""

    sent: int = 0
    acked: int = 0
    refused: int = 0  # by the broker
    resent: int = 0
    reconnects: int = 0
    behind_ms: int = 0  # how far what is sent lags what is due
    history_done_secs: float | None = None  # since the start; None while history is being sent
    secs: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def unanswered(self) -> int:
        return self.sent - self.acked - self.refused


def run_fleet(
    mqtt: MqttSettings | str,
    plan: Plan,
    record_path: str | Path | None = None,
    *,
    stop: Event | None = None,
    report: Callable[[Tally], None] | None = None,
    in_flight_max: int = 4_000,
) -> Tally:
    """Run a fleet to its end, or until ``stop`` is set; returns once the broker has answered for everything sent.

    ``mqtt`` is a broker's URL, or settings where it takes more. ``report`` is called twice a second, in this thread.
    Raises ``OperatorError`` where the broker is away at the start, or for five minutes, or refuses for good.
    """
    settings = MqttSettings(url=mqtt) if isinstance(mqtt, str) else mqtt
    return asyncio.run(_Fleet(settings, plan, record_path, stop or Event(), report, in_flight_max).run())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Fleet:
    def __init__(
        self,
        mqtt: MqttSettings,
        plan: Plan,
        record_path: str | Path | None,
        stop: Event,
        report: Callable[[Tally], None] | None,
        in_flight_max: int,
    ) -> None:
        self._plan = plan
        self._stop = stop
        self._report = report
        self._tally = Tally()
        self._record_path = record_path
        self._record: Writer | None = None
        self._started = time.monotonic()
        self._reported = 0.0
        self._publisher = Publisher(
            mqtt,
            Fates(self._acked, self._refused, self._resent),
            client_id=f"ionwax-fleet-{os.getpid()}-{secrets.token_hex(3)}",
            content_type=CONTENT_TYPES[plan.format],
            in_flight_max=in_flight_max,
        )

    async def run(self) -> Tally:
        await self._publisher.open()
        try:
            if self._record_path is not None:
                self._record = Writer(self._record_path, self._plan)
            await self._send_all(Stream(self._plan))
            await self._publisher.drained(DRAIN_SECS_MAX)
            if self._record:
                self._record.end(now_ms())
        finally:
            await self._publisher.close()
            if self._record:
                self._record.close()
        self._tell(at_last=True)
        return self._tally

    async def _send_all(self, stream: Stream) -> None:
        plan, tally = self._plan, self._tally
        while not self._stop.is_set():
            now = now_ms()
            until = now if plan.end_ms is None else min(now, plan.end_ms)
            due = stream.advance(until)
            tally.behind_ms = max(0, now - stream.at_ms)
            if tally.history_done_secs is None and stream.at_ms >= plan.start_ms:
                tally.history_done_secs = time.monotonic() - self._started
            await self._send(due)
            if plan.end_ms is not None and stream.at_ms >= plan.end_ms:
                return
            if stream.at_ms >= until:
                self._tell()
                await asyncio.sleep(TURN_SECS)

    async def _send(self, due: list[Message]) -> None:
        while due and not self._stop.is_set():
            room = await self._room(min(len(due), 250))  # in batches: each is one write to record and socket
            part, due = due[:room], due[room:]
            first = self._tally.sent
            self._tally.sent += len(part)
            self._tally.faults.update(_kinds(part))
            if self._record:
                self._record.sending(first, now_ms(), [(it.topic, it.payload, it.fault) for it in part])
            self._publisher.send(first, [(it.topic, it.payload) for it in part])
            self._tell()

    async def _room(self, wanted: int) -> int:
        """Room at the publisher; 0 where the fleet is told to stop while it waits."""
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(REPORT_SECS):
                    return await self._publisher.room(wanted)
            except TimeoutError:
                self._tell()
        return 0

    def _acked(self, numbers: Sequence[int]) -> None:
        self._tally.acked += len(numbers)
        if self._record:
            self._record.acked(numbers, now_ms())

    def _refused(self, numbers: Sequence[int], reason: int) -> None:
        self._tally.refused += len(numbers)
        if self._record:
            self._record.refused(numbers, reason, now_ms())

    def _resent(self, numbers: Sequence[int]) -> None:
        self._tally.resent += len(numbers)
        if self._record:
            self._record.resent(numbers, now_ms())

    def _tell(self, at_last: bool = False) -> None:
        self._tally.secs = time.monotonic() - self._started
        self._tally.reconnects = self._publisher.reconnects
        if self._report and (at_last or self._tally.secs - self._reported >= REPORT_SECS):
            self._reported = self._tally.secs
            self._report(self._tally)


def _kinds(messages: Iterable[Message]) -> Iterable[str]:
    """The kinds of fault of some messages; a broken payload counts as ``broken``, however it is."""
    for message in messages:
        if message.fault:
            yield from (kind.partition(":")[0] for kind in message.fault.split("+"))
