"""What ``anomaly_flags`` writes for one partition: flags, episodes, its state now and then, and what it tells others.

Guarantee: rows are written absolute, by their keys, so that a replay gives the same rows to the bit. What is published
to Kafka, and the alerts, are acknowledged before the commit: at least once, with ids that tell repetitions.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql

from connectors import timescale_connection
from connectors.checkpoint import Publisher
from connectors.timescale_connection import Connection
from schemas import flag_records, snapshot_bytes
from schemas.errors import OperatorError
from schemas.flag_records import Alert
from schemas.flags import Episode, Flag, Judged, Snapshot
from schemas.log import Refused
from schemas.progress import Claim, Counts
from schemas.record import Record
from schemas.settings import FlagSettings

ROWS_AT_ONCE: Final = 10_000
PIECE_BYTES: Final = 64 << 20  # a value of PostgreSQL holds 1 GB at most, and a message to it as much
HOUR_MS: Final = 3_600_000
TABLES: Final = ("progress", "ledger", "anomaly_episodes", "flag_states")

Place = tuple[str, str, int]  # flow, topic, partition

_FLAG_KINDS: Final[Mapping[str, str]] = {
    "bucket": "timestamptz",
    "device_id": "text",
    "metric": "text",
    "detector": "text",
    "severity": "text",
    "score": "float8",
    "value": "float8",
    "expected": "float8",
    "lower": "float8",
    "upper": "float8",
    "episode_id": "text",
    "params_version": "text",
    "revision": "int",
    "partition": "int",
}
_FLAG_KEY: Final = ("device_id", "metric", "detector", "bucket", "partition")
_EPISODE_KINDS: Final[Mapping[str, str]] = {
    "episode_id": "text",
    "flow": "text",
    "topic": "text",
    "partition": "int",
    "device_id": "text",
    "metric": "text",
    "detector": "text",
    "severity": "text",
    "opened_at": "timestamptz",
    "closed_at": "timestamptz",
    "cause": "text",
    "peak": "float8",
    "params_version": "text",
}
_EPISODE_KEY: Final = ("flow", "topic", "partition", "episode_id")
_OPEN: Final = """
    select episode_id, (extract(epoch from opened_at) * 1000)::bigint, device_id, metric, detector, severity, peak,
           params_version
    from anomaly_episodes where flow = %s and topic = %s and partition = %s and closed_at is null
"""
_PLACE: Final = "where flow = %s and topic = %s and partition = %s"


class Alerts(Protocol):
    """Where alerts go: ``connectors.mqtt_alerts.AlertSender``."""

    def send(self, alerts: Sequence[Alert]) -> None:
        """Return when all are acknowledged. Raises ``OperatorError`` if they cannot be."""
        ...


class FlagWriter:
    """Writes the ``Judged`` of the partition it was made for. Without ``alerts`` nobody is paged.

    An episode that opened or closed more than ``alert_age_max_hours`` ago, by this machine's clock, pages nobody: a log
    of a week that is read for the first time would page for a week of anomalies at once.
    """

    def __init__(
        self,
        claim: Claim,
        settings: FlagSettings,
        length_ms: int,
        publisher: Publisher,
        alerts: Alerts | None,
        dead_letter: Callable[[Claim, Refused], Record],
    ) -> None:
        self._claim = claim
        self._settings = settings
        self._length_ms = length_ms
        self._publisher = publisher
        self._alerts = alerts
        self._dead_letter = dead_letter
        self._due: list[Alert] = []
        self._upsert_flags = _upsert(settings.table, _FLAG_KINDS, _FLAG_KEY)
        self._upsert_episodes = _upsert("anomaly_episodes", _EPISODE_KINDS, _EPISODE_KEY)

    def has_rows(self, item: Judged) -> bool:
        return bool(item.flags or item.episodes or item.refused or item.snapshot)

    def write(self, transaction: Connection, items: Sequence[Judged], counts: Counts) -> Counts:
        partition = self._claim.partition
        flags = {(f.device_id, f.metric, f.detector, f.bucket): f for item in items for f in item.flags}
        _write(transaction, self._upsert_flags, [(*flag, partition) for flag in flags.values()])
        episodes = [one for item in items for one in item.episodes]
        latest = {one.episode_id: one for one in episodes}
        _write(transaction, self._upsert_episodes, [self._episode_row(one) for one in latest.values()])
        if snapshots := [item.snapshot for item in items if item.snapshot is not None]:
            keep(transaction, (self._claim.flow, self._claim.topic, self._claim.partition), snapshots[-1])
        for item in items:
            told = flag_records.records(item, self._settings.topic, self._length_ms, partition)
            self._publisher.send_all([*told, *(self._dead_letter(self._claim, one) for one in item.refused)])
        self._due = self._alerts_of(episodes)
        return counts

    def flush(self) -> None:
        """Kafka first: who was paged finds the flag there."""
        self._publisher.flush()
        if self._alerts is not None:
            self._alerts.send(self._due)
        self._due = []

    def _alerts_of(self, episodes: Sequence[Episode]) -> list[Alert]:
        oldest_ms = time.time_ns() // 1_000_000 - self._settings.alert_age_max_hours * HOUR_MS
        found = flag_records.alerts(episodes, self._settings.alert_topic, self._length_ms)
        return [alert for alert in found if alert.at_ms >= oldest_ms]

    def _episode_row(self, one: Episode) -> tuple[Any, ...]:
        flag, claim = one.flag, self._claim
        return (
            *(one.episode_id, claim.flow, claim.topic, claim.partition),
            *(flag.device_id, flag.metric, flag.detector, flag.severity),
            *(flag.bucket, one.closed, one.cause, one.peak, flag.params_version),
        )


def keep(transaction: Connection, place: Place, snapshot: Snapshot) -> None:
    """Write the state of a partition in place of the one before."""
    content = snapshot_bytes.encode(snapshot)
    transaction.execute(f"delete from flag_states {_PLACE}", place)
    for piece, at in enumerate(range(0, len(content), PIECE_BYTES)):
        transaction.execute(
            "insert into flag_states (flow, topic, partition, piece, resume, content) values (%s,%s,%s,%s,%s,%b)",
            (*place, piece, snapshot.resume, content[at : at + PIECE_BYTES]),
        )


def carry(transaction: Connection, place: Place, resume: int) -> bool:
    """Let the state on record be as of ``resume``, in whatever log that is; False where there is none."""
    moved = transaction.execute(f"update flag_states set resume = %s {_PLACE}", (resume, *place))
    return moved.rowcount > 0


def recall(conninfo: str, claim: Claim) -> tuple[Snapshot | None, Mapping[str, Episode]]:
    """The state on record of a partition that was claimed, and the episodes that stand open there, by id.

    Raises ``OperatorError`` where progress does not resume from that state.
    """
    place = (claim.flow, claim.topic, claim.partition)
    try:
        with timescale_connection.connect_or_say(conninfo, f"ionwax {claim.flow}") as connection:
            pieces = connection.execute(
                f"select resume, content from flag_states {_PLACE} order by piece", place, binary=True
            ).fetchall()
            rows = connection.execute(_OPEN, place).fetchall()
    except psycopg.Error as error:
        raise timescale_connection.operator_error(error) or timescale_connection.unreachable(conninfo, error) from None
    told = {row[0]: _open_episode(*row) for row in rows}
    resume = claim.progress.resume
    if {piece_resume for piece_resume, _ in pieces} - {resume} or (not pieces and resume > claim.progress.start):
        raise _unfit(claim, "progress does not resume from the state in flag_states")
    if not pieces:
        return None, told
    try:
        return snapshot_bytes.decode(resume, b"".join(content for _, content in pieces)), told
    except ValueError as error:
        raise _unfit(claim, f"its state cannot be read: {error}") from None


def check_tables(conninfo: str, table: str) -> None:
    """Compare the database with what this version writes. Raises ``OperatorError``; changes nothing."""
    with timescale_connection.connect_or_say(conninfo, "ionwax check") as connection:
        for name, wanted in (*((name, ()) for name in TABLES), (table, _FLAG_KINDS)):
            found = connection.execute(
                "select attname from pg_attribute where attrelid = to_regclass(quote_ident(%s)) and attnum > 0", [name]
            ).fetchall()
            missing = set(wanted) - {column for (column,) in found}
            if not found or missing:
                what = f"Table {name} lacks {', '.join(sorted(missing))}" if found else f"Table {name} is missing"
                raise OperatorError(f"{what}: run ./justw migrate.")


def _unfit(claim: Claim, words: str) -> OperatorError:
    return OperatorError(
        f"Partition {claim.partition} of {claim.topic}, flow {claim.flow}: {words}. Was a table restored or changed "
        "without the others? Restore progress and flag_states together, or give the flow another flags.name and "
        "flags.table, which begins anew."
    )


def _open_episode(
    episode_id: str, opened: int, device_id: str, metric: str, detector: str, severity: str, peak: float, version: str
) -> Episode:
    flag = Flag(opened, device_id, metric, detector, severity, peak, None, None, None, None, episode_id, version, 0)
    return Episode(episode_id, flag, peak=peak)


def _upsert(table: str, kinds: Mapping[str, str], key: Sequence[str]) -> sql.Composed:
    """Rows by arrays, a column each; instants as ms."""
    columns = {name: sql.Identifier(name) for name in kinds}
    arrays = [sql.SQL("%b::" + ("bigint" if kind == "timestamptz" else kind) + "[]") for kind in kinds.values()]
    values = [
        sql.SQL("timestamptz 'epoch' + {} * interval '1 millisecond'").format(columns[name])
        if kind == "timestamptz"
        else columns[name]
        for name, kind in kinds.items()
    ]
    rest = [sql.SQL("{0} = excluded.{0}").format(columns[name]) for name in kinds if name not in key]
    return sql.SQL(
        "insert into {table} ({names}) select {values} from unnest({arrays}) as given ({names}) "
        "on conflict ({key}) do update set {rest}"
    ).format(
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(columns.values()),
        values=sql.SQL(", ").join(values),
        arrays=sql.SQL(", ").join(arrays),
        key=sql.SQL(", ").join(columns[name] for name in key),
        rest=sql.SQL(", ").join(rest),
    )


def _write(transaction: Connection, upsert: sql.Composed, rows: Iterable[tuple[Any, ...]]) -> None:
    """Rows in the order of their keys' text, so that two writers take them in one order."""
    ordered = sorted(rows, key=lambda row: [str(value) for value in row])
    for at in range(0, len(ordered), ROWS_AT_ONCE):
        transaction.execute(upsert, [list(column) for column in zip(*ordered[at : at + ROWS_AT_ONCE], strict=True)])
