"""What is going on: one question to each real system, twice a second, beside the view and never in its way.

Nothing here is remembered from what was sent or started: positions and ledger come from the database, ends of the log
and refusals from Kafka, what was published from the fleet itself.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from confluent_kafka import KafkaException, TopicPartition
from psycopg import sql

from connectors import kafka_client, timescale_connection
from connectors.timescale_connection import Connection
from infra.dead_letters import DeadLetters
from schemas.errors import OperatorError
from schemas.progress import Counts
from schemas.settings import Settings

ASK_SECS: Final = 0.5
RATE_SECS: Final = 5.0
ANSWER_SECS: Final = 2.0
SERIES_MAX: Final = 40
WATCHER: Final = "ionwax-demo"


@dataclass(frozen=True, slots=True)
class Place:
    """One partition of the log: how far the flow has accounted for it, and where it ends. Times are ms."""

    position: int
    start: int
    end: int
    closed_ms: int | None  # end of the newest window that has closed


NOWHERE: Final = Place(0, 0, 0, None)
NOTHING: Final = Counts()


@dataclass(frozen=True, slots=True)
class Rollup:
    bucket_ms: int
    device_id: str
    metric: str
    count: int
    mean: float
    min: float
    max: float
    revision: int


@dataclass(frozen=True, slots=True)
class Flagged:
    """An episode, and what the flag said that opened it."""

    opened_ms: int
    closed_ms: int | None
    device_id: str
    metric: str
    detector: str
    severity: str
    value: float | None
    expected: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the view shows, at one moment. ``None`` is not known yet."""

    secs: float = 0.0  # since the demo was asked for
    first_rollups_secs: float | None = None
    fleet: Mapping[str, Any] | None = None  # the fields of ``infra.fleet.run.Tally``
    messages_per_sec: float = 0.0
    places: Mapping[int, Place] = field(default_factory=dict)
    counts: Counts = NOTHING
    rows: int = 0
    windows: int = 0  # buckets that have a row
    revised: int = 0  # rows that late readings revised
    days_differ: int = 0  # readings in rows, less those the ledger has by days
    refused: Mapping[str, int] = field(default_factory=dict)
    newest: Sequence[Rollup] = ()
    flags: int = 0
    episodes: int = 0
    episodes_open: int = 0
    flagged: Sequence[Flagged] = ()  # the newest episode first
    trouble: str | None = None  # what could not be asked


class Watch:
    """Asks in a thread of its own; ``figures`` is the latest answer."""

    def __init__(self, settings: Settings, fleet_log: Path, started: float) -> None:
        self.figures = Figures()
        self._settings = settings
        self._fleet_log = fleet_log
        self._started = started
        self._database: Connection | None = None
        self._letters: DeadLetters | None = None
        self._refused: Counter[str] = Counter()
        self._consumer = kafka_client.consumer(settings.kafka, WATCHER)
        self._rates: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="figures", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ask a last time, so that the figures are those of the end, and let go of all connections."""
        self._stop.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._stop.wait(ASK_SECS):
            self._ask()
        self._ask()
        if self._database:
            self._database.close()
        if self._letters:
            self._letters.close()
        self._consumer.close()

    def _ask(self) -> None:
        try:
            self.figures = replace(self._answers(), trouble=None)
        except (psycopg.Error, KafkaException, OSError, OperatorError) as error:
            words = str(error).splitlines() or [type(error).__name__]
            self.figures = replace(self.figures, trouble=words[0])
            if self._database and self._database.broken:
                self._database = None

    def _answers(self) -> Figures:
        if self._database is None:
            self._database = timescale_connection.connect(self._settings.database.conninfo, WATCHER)
        if self._letters is None:
            self._letters = DeadLetters(self._settings.kafka, from_beginning=True)
        with self._database.transaction():  # of one moment, or the equations would not hold
            self._database.execute("set transaction isolation level repeatable read read only")
            places = self._places(self._database)
            counts = self._counts(self._database)
            rows, windows, revised, differ = self._rows(self._database)
            newest = self._newest(self._database)
            flags, episodes, episodes_open = self._flag_counts(self._database)
            flagged = self._flagged(self._database)
        ends = {partition: replace(place, end=self._end(partition)) for partition, place in places.items()}
        self._refused.update(letter.reason for letter in self._letters.arrived())
        secs = time.monotonic() - self._started
        return Figures(
            secs=secs,
            first_rollups_secs=self.figures.first_rollups_secs or (secs if rows else None),
            fleet=latest_report(self._fleet_log),
            messages_per_sec=self._rate(secs, counts.messages),
            places=ends,
            counts=counts,
            rows=rows,
            windows=windows,
            revised=revised,
            days_differ=differ,
            refused=dict(self._refused.most_common()),
            newest=newest,
            flags=flags,
            episodes=episodes,
            episodes_open=episodes_open,
            flagged=flagged,
        )

    def _rate(self, secs: float, messages: int) -> float:
        self._rates = [(at, n) for at, n in self._rates if secs - at <= RATE_SECS] + [(secs, messages)]
        (began, before), (ended, after) = self._rates[0], self._rates[-1]
        return (after - before) / (ended - began) if ended > began else 0.0

    def _places(self, database: Connection) -> dict[int, Place]:
        query = "select partition, position, start, closed_until from progress where flow = %s and topic = %s"
        found = database.execute(query, (self._settings.flow.name, self._settings.kafka.events_topic))
        known = {partition: Place(position, start, 0, _ms(closed)) for partition, position, start, closed in found}
        return {partition: known.get(partition, NOWHERE) for partition in range(self._settings.kafka.partitions)}

    def _end(self, partition: int) -> int:
        place = TopicPartition(self._settings.kafka.events_topic, partition)
        return self._consumer.get_watermark_offsets(place, timeout=ANSWER_SECS)[1]

    def _counts(self, database: Connection) -> Counts:
        names = [one.name for one in fields(Counts)]
        query = sql.SQL("select {} from ledger where flow = %s").format(
            sql.SQL(", ").join(sql.SQL("coalesce(sum({}), 0)::bigint").format(sql.Identifier(name)) for name in names)
        )
        return Counts(*(database.execute(query, (self._settings.flow.name,)).fetchone() or ()))

    def _rows(self, database: Connection) -> tuple[Any, ...]:
        """Rows, windows among them, rows revised; and readings in rows that the ledger's days do not have."""
        query = sql.SQL(
            "select count(*), count(distinct bucket), count(*) filter (where revision > 0),"
            " coalesce(sum(count), 0)::bigint"
            " - (select coalesce(sum(counted + late), 0)::bigint from ledger_days where flow = %s)"
            " from {}"
        ).format(sql.Identifier(self._settings.output.table))
        return database.execute(query, (self._settings.flow.name,)).fetchone() or (0, 0, 0, 0)

    def _newest(self, database: Connection) -> Sequence[Rollup]:
        """One series a device, of the newest window that has closed in all partitions."""
        query = sql.SQL(
            "select distinct on (device_id) bucket, device_id, metric, count, mean, min, max, revision from {}"
            " where bucket = (select min(closed_until) from progress where flow = %s) - make_interval(secs => %s)"
            " order by device_id, metric <> 'temperature', metric limit %s"
        ).format(sql.Identifier(self._settings.output.table))
        found = database.execute(query, (self._settings.flow.name, self._settings.windows.length_secs, SERIES_MAX))
        return [Rollup(_ms(bucket) or 0, *rest) for bucket, *rest in found]

    def _flag_counts(self, database: Connection) -> tuple[Any, ...]:
        """Flags, episodes, and how many of those are open."""
        query = sql.SQL(
            "select (select count(*) from {}), count(*), count(*) filter (where closed_at is null)"
            " from anomaly_episodes where flow = %s"
        ).format(sql.Identifier(self._settings.flags.table))
        return database.execute(query, (self._settings.flags.name,)).fetchone() or (0, 0, 0)

    def _flagged(self, database: Connection) -> Sequence[Flagged]:
        query = sql.SQL(
            "select e.opened_at, e.closed_at, e.device_id, e.metric, e.detector, e.severity,"
            " value, expected, lower, upper from anomaly_episodes e left join {} f"
            " on f.episode_id = e.episode_id and f.bucket = e.opened_at and f.partition = e.partition"
            " where flow = %s order by e.opened_at desc, e.device_id, e.metric, e.detector limit %s"
        ).format(sql.Identifier(self._settings.flags.table))
        found = database.execute(query, (self._settings.flags.name, SERIES_MAX))
        return [Flagged(_ms(opened) or 0, _ms(closed), *rest) for opened, closed, *rest in found]


def _ms(when: datetime | None) -> int | None:
    return None if when is None else round(when.timestamp() * 1_000)


def latest_report(log: Path) -> Mapping[str, Any] | None:
    """What the fleet said last of itself, the fields of its ``Tally``; None where there is none, or not yet."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4_096))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    reports = (line for line in reversed(lines) if line.startswith(b"{") and line.endswith(b"}\n"))
    found: Mapping[str, Any] | None = next(map(msgspec.json.decode, reports), None)
    return found
