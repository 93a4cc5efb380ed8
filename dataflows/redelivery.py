"""Messages that the broker sends again although their records are in the log: recognised, and not appended twice.

A message is acknowledged after its record is durable. Between the two a process can be killed or a connection cut, and
the message comes again, marked DUP. What was appended lately is remembered, and at a start read back from the log.

Rule: pure. A record is recognised by its value, which holds device id, time and metrics: two that are equal are one
reading, so a mistake could not change a row. A message without a time of its own gets another one each time it comes
and is not recognised (DESIGN.md, section 5). Nor are dead letters, where two equal payloads are two letters.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice

from schemas.arrivals import Arrivals


class Appended:
    """Values appended lately: at least the last ``values_max``, at most twice as many. Eight bytes of each are kept.

    ``before``, read back at a start, is known until ``values_max`` more have been appended.
    """

    def __init__(self, values_max: int, before: Iterable[bytes] = ()) -> None:
        self._values_max = values_max
        self._newer: set[int] = set()
        self._older = {hash(value) for value in before}

    def add(self, values: Iterable[bytes]) -> None:
        hashes = map(hash, values)
        while more := list(islice(hashes, self._values_max)):
            if len(self._newer) + len(more) > self._values_max:
                self._older, self._newer = self._newer, set()
            self._newer.update(more)

    def __contains__(self, value: bytes) -> bool:
        known = hash(value)
        return known in self._newer or known in self._older


def runs(arrivals: Arrivals) -> Iterator[tuple[bool, Arrivals]]:
    """``arrivals`` cut where DUP changes, in order, each run with its DUP."""
    if not any(arrivals.dups):
        yield False, arrivals
        return
    start = 0
    for dup, run in groupby(arrivals.dups):
        end = start + sum(1 for _ in run)
        yield dup, _part(arrivals, slice(start, end))
        start = end


def _part(arrivals: Arrivals, where: slice) -> Arrivals:
    return Arrivals(
        arrivals.worker,
        arrivals.topics[where],
        arrivals.payloads[where],
        arrivals.content_types[where],
        arrivals.ingest_times[where],
        arrivals.dups[where],
    )
