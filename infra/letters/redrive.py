"""`./justw redrive [--reason R] [--since TIME] [--dry-run]`: dead letters through today's decoder, back into the log.

For payloads that were right and a decoder that was wrong: a format that was missing, a limit that was too low. Each
record says by its header ``redriven-from`` which letter it is of. It keeps the time of its readings and is appended
now, so windows that have closed count it as late and revise their rows. What fails still stays where it is.

Guarantee: a letter is sent again once (``infra.letters.sent``); of one that was refused in part only what the log has
not got from its first arrival. Limits of time are asked of the time it came; only its age also of now.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from connectors.kafka import KafkaLog
from connectors.kafka_sink import Publisher
from dataflows.decoding.reasons import Reason
from infra.letters.again import Decoder, Stays
from infra.letters.letter import GROUP, headers_of, letters, messages
from infra.letters.sent import Doubt, Place, SentAgain, sent_again
from infra.reading import instant
from infra.settings_option import add_settings_option, chosen_settings
from infra.sql import table
from schemas.errors import OperatorError
from schemas.record import Record
from schemas.settings import Settings

FROM: Final = "redriven-from"
BATCH: Final = 500  # letters that are in doubt at most after a kill
SENT: Final = "sent again"


class Result(NamedTuple):
    """What became of letters: (reason then, outcome) → how many; and how many records went into the log."""

    letters: Counter[tuple[str, str]]
    records: int


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./justw redrive", description="Dead letters through today's decoder, back into the log."
    )
    parser.add_argument("--reason", choices=list(Reason), metavar="R", help=", ".join(Reason))
    parser.add_argument("--since", metavar="TIME", help="2026-01-31T12:00:00Z, or milliseconds since 1970")
    parser.add_argument("--dry-run", action="store_true", help="say what would become of them, and send nothing")
    add_settings_option(parser)
    chosen = parser.parse_args(arguments)
    settings = chosen_settings(chosen, "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
    since_ms = None if chosen.since is None else instant(chosen.since, time.time_ns() // 1_000_000)
    result = redrive(settings, chosen.reason, since_ms, chosen.dry_run)
    if not result.letters:
        print("no such letters that were not sent again before")
        return 0
    rows = [[reason, outcome, often] for (reason, outcome), often in sorted(result.letters.items())]
    print(*table(["refused as", "now", "letters"], rows), sep="\n")
    print(f"{result.records} records {'would go' if chosen.dry_run else 'went'} into {settings.kafka.events_topic}")
    return 0


def redrive(
    settings: Settings, reason: str | None = None, since_ms: int | None = None, dry_run: bool = False
) -> Result:
    """Send again what today's decoder takes, of all letters that were not sent again before."""
    topic = settings.kafka.dead_letter_topic
    identity = KafkaLog(settings.kafka, topic, GROUP).identity()
    with sent_again(settings.database.conninfo, topic, identity, alone=not dry_run) as sent:
        return _Redrive(settings, sent).run(reason, since_ms, dry_run)


class _Redrive:
    def __init__(self, settings: Settings, sent: SentAgain) -> None:
        self._settings = settings
        self._sent = sent
        self._decoder = Decoder(settings)
        self._result = Result(Counter(), 0)

    def run(self, reason: str | None, since_ms: int | None, dry_run: bool) -> Result:
        if not dry_run and (doubt := self._sent.doubt()) is not None:
            self._settle(doubt)
        known = self._sent.all()
        told: Counter[tuple[str, str]] = Counter()
        records = 0
        found = (
            one
            for one in letters(self._settings.kafka, since_ms)
            if reason in (None, one.reason) and Place(one.partition, one.offset) not in known
        )
        while some := list(islice(found, BATCH)):
            good: dict[Place, Sequence[Record]] = {}
            for letter, again in self._decoder.decode(some, time.time_ns() // 1_000_000):
                if isinstance(again, Stays):
                    told[letter.reason, again.why] += 1
                else:
                    told[letter.reason, SENT] += 1
                    good[Place(letter.partition, letter.offset)] = again
            records += sum(map(len, good.values()))
            if good and not dry_run:
                self._send(good)
        return Result(told, records)

    def _send(self, good: Mapping[Place, Sequence[Record]]) -> None:
        """Note, send, wait until durable, confirm: a kill between leaves a doubt that ``_settle`` resolves."""
        self._sent.note({place: len(records) for place, records in good.items()}, self._log_ends())
        self._publish(marked for place, records in good.items() for marked in self._marked(place, records))
        self._sent.confirm(good)

    def _publish(self, records: Iterable[Record]) -> None:
        publisher = Publisher(self._settings.kafka)
        publisher.send_all(list(records))
        publisher.flush()

    def _marked(self, place: Place, records: Sequence[Record]) -> Iterator[Record]:
        for index, record in enumerate(records):
            yield record._replace(headers=(*record.headers, (FROM, self._mark(place, index).encode())))

    def _mark(self, place: Place, index: int) -> str:
        return f"{self._settings.kafka.dead_letter_topic}/{place.partition}/{place.offset}#{index}"

    def _log_ends(self) -> dict[int, int]:
        log = KafkaLog(self._settings.kafka, self._settings.kafka.events_topic, GROUP)
        return {partition: log.bounds(partition)[1] for partition in log.partitions()}

    def _settle(self, doubt: Doubt) -> None:
        """After a kill: forget letters of which the log has nothing; send the rest of those that it has a part of."""
        kafka = self._settings.kafka
        heard = {
            mark
            for message in messages(kafka, kafka.events_topic, doubt.log_ends)
            if (mark := headers_of(message).get(FROM)) is not None
        }
        begun = {place for place in doubt.letters if self._mark(place, 0) in heard or self._any(place, heard)}
        self._sent.forget(set(doubt.letters) - begun)
        if not begun:
            return
        found = [one for one in letters(kafka) if Place(one.partition, one.offset) in begun]
        missing: list[Record] = []
        for letter, again in self._decoder.decode(found, time.time_ns() // 1_000_000):
            if not isinstance(again, Stays):
                place = Place(letter.partition, letter.offset)
                marked = list(self._marked(place, again))
                missing += [one for i, one in enumerate(marked) if self._mark(place, i) not in heard]
        self._publish(missing)
        self._sent.confirm(begun)

    def _any(self, place: Place, heard: set[str]) -> bool:
        return any(mark.startswith(self._mark(place, 0)[:-1]) for mark in heard)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"redrive: {error}")
