"""What is broken, when, and for how long: a pure function of the seed.

What matters most comes first: short runs meet each of ``ESSENTIAL`` before anything else, each once, in an order of the
seed's own. After it all acts there are are dealt like cards, so that none is missing for long.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

FLOWS: Final = ("ingest", "minute_rollups")
ARCHIVE: Final = "raw_archive"  # beside them, where they are asked for
FLAGS: Final = "anomaly_flags"
SERVERS: Final = ("mqtt", "kafka", "database")
ALL: Final = "all"

GAP_SECS: Final = (0.5, 2.5)  # from the end of an act to the next: between them things recover, or do not quite
LASTS_SECS: Final = (0.5, 4.0)
STALLED_SECS: Final = (4.5, 6.0)  # a window of four seconds closes meanwhile, and would be written

WORDS: Final = {
    "kill": "kill -9 {target}, start it again after {secs:.1f} s",
    "freeze": "stop {target} (SIGSTOP), continue it after {secs:.1f} s",
    "replace": "stop {target} (SIGSTOP), start another, continue the first after {secs:.1f} s",
    "kill_stalled": "let no record of {target} through to Kafka, and kill -9 it after {secs:.1f} s",
    "cut": "cut every connection to {target}",
    "stall": "let nothing through to {target} for {secs:.1f} s",
    "refuse": "refuse every connection to {target} for {secs:.1f} s",
    "restart": "kill -9 {target}, start it again",
    "rescale": "stop {target} in order, start it with other numbers of processes and workers",
    "copy": "start a second {target} by mistake, kill it after {secs:.1f} s",
}
"""The acts. A server that is not ours to restart is refused instead."""

ESSENTIAL: Final = (
    ("kill_stalled", "minute_rollups"),
    ("kill_stalled", "ingest"),
    ("replace", "minute_rollups"),
    ("kill", ALL),
    ("restart", SERVERS),
    ("cut", SERVERS),
    ("rescale", "minute_rollups"),
    ("copy", "minute_rollups"),
)


def acts_on(flows: Sequence[str]) -> list[tuple[str, str]]:
    """Every kind of act with every target there is."""
    return [
        *((kind, target) for kind in ("kill", "freeze") for target in (*flows, ALL)),
        *((kind, target) for kind in ("replace", "kill_stalled", "rescale", "copy") for target in flows),
        *((kind, target) for kind in ("cut", "stall", "refuse") for target in (*SERVERS, ALL)),
        *(("restart", target) for target in SERVERS),
    ]


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that is done ``at_secs`` after the start, or as soon as the one before it is over."""

    at_secs: float
    kind: str
    target: str
    secs: float = 0.0
    processes: int = 1
    workers: int = 1

    def __str__(self) -> str:
        words = WORDS[self.kind].format(target=self.target, secs=self.secs)
        return f"{words}: {self.processes} × -w {self.workers}" if self.kind == "rescale" else words


def schedule(seed: int, for_secs: float, flows: Sequence[str] = FLOWS) -> list[Act]:
    """The acts of a run that lasts ``for_secs``, ascending."""
    random = Random(seed)
    found: list[Act] = []
    at_secs = random.uniform(*GAP_SECS)
    for kind, target in _dealt(random, flows):
        if not isinstance(target, str):
            target = random.choice(target)
        secs = round(random.uniform(*(STALLED_SECS if kind == "kill_stalled" else LASTS_SECS)), 1)
        processes, workers = random.choice((1, 2) if target != "ingest" else (1,)), random.choice((1, 2, 3))
        secs = 0.0 if kind in ("cut", "rescale") else secs
        if at_secs + secs > for_secs:
            return found
        found.append(Act(round(at_secs, 1), kind, target, secs, processes, workers))
        at_secs += secs + random.uniform(*GAP_SECS)
    raise AssertionError("cards are dealt without end")


def _dealt(random: Random, flows: Sequence[str]) -> Iterator[tuple[str, str | Sequence[str]]]:
    yield from random.sample(ESSENTIAL, len(ESSENTIAL))
    while True:
        cards = acts_on(flows)
        yield from random.sample(cards, len(cards))
