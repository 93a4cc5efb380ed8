"""`./justw dead-letters [--reason R] [--since TIME] [--limit N] [--count]`: what could not be used, and why.

Nothing that a device sent reaches the terminal as it is: control characters are written as escapes.
"""

import argparse
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from connectors.kafka import KafkaLog
from dataflows.decoding.reasons import Reason
from dataflows.decoding.topics import TopicTemplate, compile_topic
from infra.letters.letter import GROUP, Letter, letters
from infra.letters.sent import Place, sent_again
from infra.reading import instant
from infra.settings_option import add_settings_option, chosen_settings
from infra.sql import table
from schemas.errors import OperatorError
from schemas.settings import Settings

PAYLOAD_CHARS: Final = 80
TEXT_CHARS: Final = 100


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw dead-letters", description="What could not be used, and why.")
    parser.add_argument("--reason", choices=list(Reason), metavar="R", help=", ".join(Reason))
    parser.add_argument("--since", metavar="TIME", help="2026-01-31T12:00:00Z, milliseconds since 1970, or -2h")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="the newest N (50); 0: all")
    parser.add_argument("--count", action="store_true", help="only how many of each reason")
    add_settings_option(parser)
    chosen = parser.parse_args(_with_equals(sys.argv[1:] if arguments is None else arguments))
    settings = chosen_settings(chosen, "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
    since_ms = None if chosen.since is None else instant(chosen.since, time.time_ns() // 1_000_000)
    topic = settings.kafka.dead_letter_topic
    identity = KafkaLog(settings.kafka, topic, GROUP).identity()
    with sent_again(settings.database.conninfo, topic, identity) as sent:
        redriven = sent.all()
    found = (one for one in letters(settings.kafka, since_ms) if chosen.reason in (None, one.reason))
    lines = counted(found, redriven) if chosen.count else listed(found, settings, redriven, chosen.limit)
    print(*lines, sep="\n")
    return 0


def _with_equals(arguments: Sequence[str]) -> list[str]:
    """``--since -2h`` as ``--since=-2h``: argparse would take the second word for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--since":
            joined[-1] = f"--since={word}"
        else:
            joined.append(word)
    return joined


def counted(found: Iterable[Letter], redriven: set[Place]) -> Iterator[str]:
    """How many of each reason, and how many of them were sent again."""
    all_of: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for one in found:
        all_of[one.reason] += 1
        again[one.reason] += Place(one.partition, one.offset) in redriven
    if not all_of:
        yield "no such letters"
        return
    yield from table(["reason", "letters", "sent again"], [[safe(r), n, again[r]] for r, n in all_of.most_common()])


def listed(found: Iterable[Letter], settings: Settings, redriven: set[Place], limit: int) -> Iterator[str]:
    """The newest letters, oldest first, one a line."""
    template = compile_topic(settings.mqtt.topic, settings.mqtt.device_id_template)
    total = 0
    kept: deque[Letter] = deque(maxlen=limit or None)
    for one in found:
        total += 1
        kept.append(one)
    if not total:
        yield "no such letters"
        return
    header = ["time (UTC)", "letter", "reason", "detail", "from", "device", "bytes", "payload"]
    rows = [_row(one, template, Place(one.partition, one.offset) in redriven) for one in kept]
    yield from table(header, rows)
    if total > len(kept):
        yield f"({len(kept)} of {total}; --limit 0 shows all)"
    if any(one.partition == place.partition and one.offset == place.offset for one in kept for place in redriven):
        yield "✓ was sent again (./justw redrive)"


def _row(one: Letter, template: TopicTemplate, redriven: bool) -> list[object]:
    origin = one.source
    if one.from_log:
        origin = f"{one.source}/{one.headers.get('source-partition', '?')}/{one.headers['source-offset']}"
    size = f"{len(one.payload)} of {one.original_bytes}" if one.original_bytes else str(len(one.payload))
    return [
        datetime.fromtimestamp(one.time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        f"{one.place} ✓" if redriven else one.place,
        safe(one.reason),
        safe(one.headers.get("detail", "")),
        safe(origin),
        safe(one.device(template)),
        size,
        safe(one.payload, PAYLOAD_CHARS),
    ]


def safe(content: str | bytes, chars_max: int = TEXT_CHARS) -> str:
    """Text that a terminal takes for text, cut; what is not UTF-8, or not printable, as escapes."""
    if isinstance(content, bytes):
        content = content[: 4 * chars_max].decode(errors="backslashreplace")
    cut = content[: chars_max + 1]
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
    return shown if len(shown) <= chars_max else shown[: chars_max - 1] + "…"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"dead-letters: {error}")
    except BrokenPipeError:
        sys.exit(0)
