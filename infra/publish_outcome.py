"""What became of one published payload, asked of the database and of the dead letter."""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from psycopg import sql

from connectors import timescale_connection
from infra.dead_letters import DeadLetter, DeadLetters
from infra.duration import spoken
from infra.reading import Expected, Forecast
from schemas.settings import Settings

PATIENCE_SECS: Final = 45.0
"""How long after its window's closing a row may take to appear: ticks, epochs and a slow machine."""

ASK_SECS: Final = 0.25
COLUMNS: Final = ("bucket", "device_id", "metric", "count", "mean", "min", "max", "first", "last", "revision")

Row = tuple[Any, ...]


class Outcome:
    """Made before the payload is published, so that what it changes can be told from what was there."""

    def __init__(self, settings: Settings, topic: str, payload: bytes, expected: Forecast) -> None:
        self._settings = settings
        self._topic = topic
        self._payload = payload[: settings.decoding.payload_bytes_max]
        self._expected = expected
        self._database = timescale_connection.connect_or_say(settings.database.conninfo, "ionwax publish")
        self._letters = DeadLetters(settings.kafka)
        self._before = {reading: self._row(reading) for reading in expected.readings}

    def show(self) -> int:
        """Wait, and print rows and refusals as they come; the exit status."""
        rows: dict[Expected, Row] = {}
        reasons: list[str] = []
        terminal = sys.stderr.isatty()
        last_ms = max((reading.closes_ms for reading in self._expected.readings), default=0)
        deadline = time.time() + PATIENCE_SECS + max(0.0, last_ms / 1_000 - time.time())
        while not self._complete(rows, reasons) and time.time() < deadline:
            reasons += [f"{it.reason}: {it.detail}" for it in self._letters.arrived(ASK_SECS) if self._is_ours(it)]
            for reading in self._expected.readings:
                if reading not in rows and (row := self._row(reading)) and row != self._before[reading]:
                    rows[reading] = row
            if terminal:
                left = (
                    f"closes in {spoken(last_ms / 1_000 - time.time())}" if last_ms / 1_000 > time.time() else "closing"
                )
                print(f"\r\033[Kwaiting … {left}", end="", file=sys.stderr, flush=True)
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        for reason in reasons:
            print(f"refused, and kept in {self._settings.kafka.dead_letter_topic}: {reason}")
        if rows:
            print("\n".join(table([COLUMNS, *(shown(row) for row in rows.values())])))
        return self._verdict(rows, reasons)

    def close(self) -> None:
        self._database.close()
        self._letters.close()

    def _complete(self, rows: dict[Expected, Row], reasons: Sequence[str]) -> bool:
        return len(rows) == len(self._expected.readings) and (bool(reasons) or self._expected.refused is None)

    def _verdict(self, rows: dict[Expected, Row], reasons: Sequence[str]) -> int:
        if self._complete(rows, reasons):
            return 0 if not reasons else 1
        for reading in self._expected.readings:
            if reading in rows:
                continue
            if self._before[reading]:
                print(
                    f"the row of {reading.metric} has not changed: the same reading was in it already, or nobody reads"
                )
            else:
                print(f"no row of {reading.metric} yet: do ingest and {self._settings.flow.name} run, and keep up?")
        if self._expected.refused and not reasons:
            print(f"nothing of it in {self._settings.kafka.dead_letter_topic} yet: does ingest run, and keep up?")
        return 1

    def _is_ours(self, letter: DeadLetter) -> bool:
        return letter.source == self._topic and letter.payload == self._payload[: len(letter.payload)]

    def _row(self, reading: Expected) -> Row | None:
        query = sql.SQL("select {} from {} where device_id = %s and metric = %s and bucket = %s").format(
            sql.SQL(", ").join(map(sql.Identifier, COLUMNS)), sql.Identifier(self._settings.output.table)
        )
        bucket = datetime.fromtimestamp(reading.bucket_ms / 1_000, UTC)
        return self._database.execute(query, (reading.device_id, reading.metric, bucket)).fetchone()


def shown(row: Row) -> tuple[str, ...]:
    """A row as text: times in UTC, numbers short."""
    return tuple(
        f"{value.astimezone(UTC):%Y-%m-%d %H:%M}" if isinstance(value, datetime)
        else f"{value:.6g}" if isinstance(value, float) else str(value)
        for value in row
    )  # fmt: skip


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines, the first underlined."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]


def utc(ms: int, form: str) -> str:
    """An instant as text, in UTC; whatever a payload may say."""
    try:
        return datetime.fromtimestamp(ms / 1_000, UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"
