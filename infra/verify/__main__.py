"""`./justw verify [--deep [--since TIME]] [--sent FILE] [--watch]`."""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from datetime import UTC, date, datetime
from pathlib import Path

from connectors.kafka import KafkaLog
from connectors.timescale_connection import Connection
from infra.settings_option import add_settings_option, chosen_settings
from infra.sql import table
from infra.verify import archive, ledger, reading, replay, sent
from infra.verify.finding import Finding
from infra.verify.ledger import Books
from schemas.errors import OperatorError
from schemas.settings import Settings

FINDINGS_SHOWN_MAX = 40
LEDGER = ("messages", "ticks", "refused", "gaps", "readings", "counted", "late", "duplicates", "late dup.", "open")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw verify", description="Is every reading accounted for exactly once?")
    add_settings_option(parser)
    parser.add_argument("--deep", action="store_true", help="read the log again and compare every row")
    parser.add_argument("--since", type=datetime.fromisoformat, help="with --deep: windows from this time on (UTC)")
    parser.add_argument(
        "--sent", type=Path, metavar="FILE", help="a fleet's record: find what it says was acknowledged"
    )
    parser.add_argument("--watch", type=float, nargs="?", const=10.0, metavar="SECS", help="again and again")
    chosen = parser.parse_args(arguments)
    settings = chosen_settings(chosen, "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
    since_ms = 0 if chosen.since is None else round(chosen.since.replace(tzinfo=UTC).timestamp() * 1000)
    while True:
        found = list(check(settings, chosen.deep, since_ms, chosen.sent))
        for finding in found[:FINDINGS_SHOWN_MAX]:
            print(f"✗ {finding}")
        if len(found) > FINDINGS_SHOWN_MAX:
            print(f"✗ and {len(found) - FINDINGS_SHOWN_MAX} more")
        verdict = "✗ not every reading is explained" if found else "✓ every reading is accounted for exactly once"
        print(verdict, flush=True)  # whoever watches may do so through a pipe
        if chosen.watch is None:
            return 1 if found else 0
        time.sleep(chosen.watch)
        print()


def check(
    settings: Settings, deep: bool = False, since_ms: int = 0, sent_path: Path | None = None
) -> Iterator[Finding]:
    """Print what was looked at, as tables, and yield what is not explained."""
    topic, flow = settings.kafka.events_topic, settings.flow.name
    log = KafkaLog(settings.kafka, topic, reading.GROUP)
    with reading.snapshot(settings.database.conninfo) as connection:
        books = ledger.read_books(connection, flow, topic, settings.output.table)
        if not books.accounts:
            raise OperatorError(f"flow {flow} has no progress for topic {topic}: nothing was counted yet")
        show(books, log, settings)
        yield from ledger.check_books(books)
        yield from ledger.check_log(books, log)
        if (archived := archive.read_archive(connection, settings)) is not None:
            show_archive(archived, log, settings)
            yield from archive.check_archive(archived)
            yield from ledger.check_log(archived.books, log)
        if deep:
            yield from check_rows(settings, connection, books, log, since_ms)
    if sent_path is not None:
        yield from _check_sent(settings, sent_path, log)


def show(books: Books, log: KafkaLog, settings: Settings) -> None:
    print(f"{settings.flow.name}: {log.topic} → {settings.output.table}\n")
    rows = [
        [one.partition, one.start, one.position, log.bounds(one.partition)[1] - one.position, *astuple(one.counts)]
        for one in books.accounts
    ]
    print(*table(["partition", "from", "position", "behind", *LEDGER], rows), sep="\n", end="\n\n")
    lines: list[list[object]] = []
    for day in books.days:
        lines += [[day.day, partition, sum(said), None] for partition, said in sorted(day.ledger.items())]
        lines.append([day.day, "all", day.in_ledger, "expired" if day.expired else day.in_rows])
    print(*table(["day (UTC)", "partition", "in the ledger", "in rows"], lines), sep="\n", end="\n\n")


def show_archive(archived: archive.Archived, log: KafkaLog, settings: Settings) -> None:
    print(f"{settings.archive.name}: {log.topic} → {settings.archive.table}\n")
    header = ["partition", "from", "position", "behind", *LEDGER[:5], "in rows"]
    rows = [
        [
            one.partition,
            one.start,
            one.position,
            log.bounds(one.partition)[1] - one.position,
            *astuple(one.counts)[:5],
            archive.rows_of(archived, one),
        ]
        for one in archived.books.accounts
    ]
    print(*table(header, rows), sep="\n", end="\n\n")


def check_rows(
    settings: Settings, connection: Connection, books: Books, log: KafkaLog, since_ms: int
) -> Iterator[Finding]:
    """The log replayed by other code, and every row compared that has not expired."""
    if books.rows_from is not None:
        since_ms = max(since_ms, round(datetime.combine(books.rows_from, datetime.min.time(), UTC).timestamp() * 1000))
    if any(account.decided != (0, 0) for account in books.accounts):
        since_ms = max(since_ms, _after_decisions(settings, connection, log.topic))
    told = archive.told(connection, settings)
    expected: dict[replay.Key, replay._Sums] = {}
    home: dict[replay.Key, int] = {}
    late: set[tuple[str, str, int, bytes]] = set()
    for account in books.accounts:
        again = replay.Replay(settings, None if told is None else told[account.partition], late=late)
        begin, since_ms = _begin(settings, account.partition, account.start, log, since_ms)
        for record in reading.records(settings, log.topic, account.partition, begin, account.position):
            again.read(record)
        replay.join(expected, again.rows)
        home |= dict.fromkeys(again.rows, account.partition)
    compared = sum(key[2] >= since_ms for key in expected)
    by_place: dict[tuple[int | None, date], list[tuple[str, tuple[int, int] | None]]] = defaultdict(list)
    for key, wrong, offsets in replay.differences(
        expected, reading.rows(connection, settings.output.table, since_ms), since_ms
    ):
        device_id, metric, bucket = key
        at = datetime.fromtimestamp(bucket / 1000, UTC)
        by_place[home.get(key), at.date()].append((f"{device_id} {metric} at {at:%H:%M}: {wrong}", offsets))
    print(f"log read again: {compared} rows compared\n")
    for (partition, day), wrongs in by_place.items():
        first, last = replay.offsets_of([offsets for _, offsets in wrongs])
        more = f" (and {len(wrongs) - 1} more rows)" if len(wrongs) > 1 else ""
        yield Finding(f"{wrongs[0][0]}{more}", partition, day, first, last)


def _after_decisions(settings: Settings, connection: Connection, topic: str) -> int:
    """From when on the log that is there explains every row, though the flow once went on by ``./justw forfeit``.

    What it had counted until then was appended before, and happened at most the skew later.
    """
    until = ledger.decided_until(connection, settings.flow.name, topic)
    since_ms = until + round(settings.windows.clock_skew_max_secs * 1000)
    at = datetime.fromtimestamp(since_ms / 1000, UTC)
    print(f"rows from {at:%Y-%m-%d %H:%M:%S} (UTC) on: until then the flow went on by ./justw forfeit\n")
    return since_ms


def _begin(settings: Settings, partition: int, start: int, log: KafkaLog, since_ms: int) -> tuple[int, int]:
    """Where to begin reading so that every window from ``since_ms`` on is whole, and from when on they are."""
    low, _ = log.bounds(partition)
    windows = settings.windows
    if low > start and not since_ms:
        raise OperatorError(
            f"partition {partition}: retention deleted offsets {start} to {low - 1}; give --since a time after them"
        )
    if not since_ms:
        return start, since_ms
    length_ms = windows.length_secs * 1000
    since_ms += -since_ms % length_ms
    # A reading of a window from then on was appended at most the skew before it.
    skew_ms = round(windows.clock_skew_max_secs * 1000)
    found = reading.first_offset_since(settings, log.topic, partition, since_ms - skew_ms)
    return max(start, low if found is None else found), since_ms


def _check_sent(settings: Settings, path: Path, log: KafkaLog) -> Iterator[Finding]:
    heard = sent.Heard(settings)
    for partition in log.partitions():
        low, high = log.bounds(partition)
        heard.in_log(reading.records(settings, log.topic, partition, low, high))
    heard.in_dead_letter(reading.payloads(settings))

    def say(sums: sent.Sums) -> None:
        print(
            f"{path.name}: {sums.acknowledged} messages acknowledged; {sums.in_log} in the log, "
            f"{sums.in_dead_letter} in the dead letter\n"
        )

    yield from sent.check_sent(path, settings, heard, say)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"verify: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
