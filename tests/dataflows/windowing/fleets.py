"""Simulated fleets with wrong clocks, outages and backlogs: the log that ingest would have written.

Devices send every few seconds; ingest workers append what reaches them, at most so many times as fast as the fleet
sends. A worker ticks each second while it is up and has nothing left to catch up with.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np
import polars as pl

from schemas.frames import MESSAGES, TICKS
from schemas.log import LogSlice
from tests.oracles import Message, Record, Rules, Tick

BASE = 1_763_700_000_000
OUTAGE = (200_000, 800_000)  # ms after BASE: ten minutes


class Sent(NamedTuple):
    """A message as it left its device: true time, what the device says, which worker receives it."""

    at: int
    event: int
    device: int
    worker: int


@dataclass(frozen=True)
class Fleet:
    """A scenario. ``speeds`` are the workers', as multiples of the rate at which the fleet sends to each of them."""

    devices: int = 150
    wrong: int = 3
    every_ms: int = 10_000
    speeds: tuple[float, ...] = (5.0,)
    overtaking: bool = False  # live messages reach the log at once, beside the backlog
    starts_in_backlog: bool = False
    tail_ms: int = 300_000  # after everybody has caught up
    seed: int = 1

    @property
    def workers(self) -> tuple[str, ...]:
        return tuple(f"ingest-{i}" for i in range(len(self.speeds)))

    def is_honest(self, device: str) -> bool:
        return int(device) >= self.wrong

    def records(self) -> list[Message | Tick]:
        """The log, in the order of appending."""
        appended: list[tuple[int, Sent | int]] = []
        for worker in range(len(self.speeds)):
            sent = [message for message in self._sent() if message.worker == worker]
            arrivals, caught_up = self._arrivals(sent, self.speeds[worker])
            appended += arrivals
            until = arrivals[-1][0]
            ticks = [*range(1_000, OUTAGE[0], 1_000), *range(caught_up // 1000 * 1000 + 1_000, until, 1_000)]
            appended += [(at, worker) for at in ticks]
        appended.sort(key=lambda entry: entry[0])
        if self.starts_in_backlog:
            appended = [entry for entry in appended if entry[0] >= OUTAGE[1]]
        return [self._record(offset, at, what) for offset, (at, what) in enumerate(appended)]

    def _record(self, offset: int, at: int, what: Sent | int) -> Message | Tick:
        if isinstance(what, int):
            return Tick(offset, BASE + at, self.workers[what], BASE + at)
        return Message(offset, BASE + at, BASE + what.event, str(what.device), (("t", float(what.event)),))

    def _sent(self) -> list[Sent]:
        random = Random(self.seed)
        slowest = min(self.speeds)
        catching_up = 0 if self.overtaking else (OUTAGE[1] - OUTAGE[0]) / (slowest - 1)
        until = int(OUTAGE[1] + catching_up + self.tail_ms)
        sent = []
        for device in range(self.devices):
            ahead = random.choice((-1, 1)) * random.randint(5_000, 240_000) if device < self.wrong else 0
            if device == 0:
                ahead = abs(ahead)  # at least one clock is fast
            times = range(random.randrange(self.every_ms), until, self.every_ms)
            sent += [Sent(at, at + ahead, device, random.randrange(len(self.speeds))) for at in times]
        return sorted(sent)

    def _arrivals(self, sent: list[Sent], speed: float) -> tuple[list[tuple[int, Sent]], int]:
        """When each message of a worker is appended, and when it had caught up."""
        random = Random(self.seed + 1)
        gap = self.every_ms * len(self.speeds) / self.devices / speed
        free, arrivals, caught_up = 0.0, [], OUTAGE[1]
        for message in sent:
            reaches = message.at + random.randint(1, 800)
            is_down = OUTAGE[0] <= reaches < OUTAGE[1]
            if self.overtaking and not is_down:
                arrivals.append((reaches, message))
                continue
            start = max(OUTAGE[1] if is_down else reaches, free)
            if message.at >= OUTAGE[0] and start > reaches:
                caught_up = int(start)
            free = start + gap
            arrivals.append((int(start), message))
        return sorted(arrivals), caught_up


def slices_of(records: list[Message | Tick], batch: int) -> Iterator[LogSlice]:
    """The log in slices of so many records; many records at once."""
    for low in range(0, len(records), batch):
        some = records[low : low + batch]
        messages = [record for record in some if isinstance(record, Message)]
        ticks = [record for record in some if isinstance(record, Tick)]
        frame = pl.DataFrame(
            {
                "offset": np.array([m.offset for m in messages], np.int64),
                "append_time": np.array([m.append for m in messages], np.int64),
                "event_time": np.array([m.event for m in messages], np.int64),
                "device_id": pl.Series([m.device for m in messages], dtype=pl.String()),
                "metric": pl.Series([["t"]] * len(messages), dtype=pl.List(pl.String())),
                "value": pl.Series([[m.readings[0][1]] for m in messages], dtype=pl.List(pl.Float64())),
            },
            schema=MESSAGES,
        )
        said = pl.DataFrame([(t.offset, t.append, t.worker, t.ts) for t in ticks], schema=TICKS, orient="row")
        yield LogSlice(0, some[0].offset, some[-1].offset + 1, frame, said)


def late_by_maximum(records: Sequence[Record], rules: Rules) -> Counter[str]:
    """Who is late where a window closes once the maximum of (accepted) event times passes its end and the lateness."""
    newest, late = -(10**18), Counter[str]()
    for record in records:
        if not isinstance(record, Message) or record.event - record.append > rules.skew:
            continue
        if record.event // rules.length * rules.length + rules.length + rules.lateness <= newest:
            late[record.device] += 1
        newest = max(newest, record.event)
    return late
