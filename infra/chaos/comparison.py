"""What a disturbed run left behind, against an undisturbed one over the same log: to the byte.

Compared are the rows of the table, the late readings, the ledger, and of ``aggregates.minute`` the newest revision of
each (series, window) and the windows told as closed. The order in the topic and its repetitions are not: it is
written at least once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from confluent_kafka import Message, TopicPartition
from psycopg import sql

from connectors import kafka_client
from schemas.rollup_pb2 import Rollup
from schemas.settings import Settings

DIFFERENCES_SHOWN_MAX: Final = 5
_LATE: Final = 'device_id, metric, event_time, float8send(value), partition, "offset", seen_at'
_LEDGER: Final = "partition, messages, ticks, refused, gaps, readings, counted, late, duplicates, late_duplicates, open"
_DAYS: Final = "partition, day, counted, late"
_POSITION: Final = "partition, position, closed_until"


@dataclass(frozen=True, slots=True)
class Told:
    """What a topic of rollups says in the end."""

    rollups: dict[tuple[str, str, int], bytes]  # (device, metric, bucket) → the newest revision's record
    closed: set[tuple[int, int]]  # partition, window


def differences(disturbed: Settings, undisturbed: Settings) -> Iterator[str]:
    """Everything that is not equal; both wrote to the database of ``disturbed``."""
    with psycopg.connect(disturbed.database.conninfo) as connection:
        connection.execute("set timezone to 'UTC'")
        tables = [sql.Identifier(one.output.table) for one in (disturbed, undisturbed)]
        yield from between(connection, "row", *(sql.SQL("select t::text from {} t").format(table) for table in tables))
        for table, columns in (
            ("late_readings", _LATE),
            ("ledger", _LEDGER),
            ("ledger_days", _DAYS),
            ("progress", _POSITION),
        ):
            query = "select row({})::text from {} where flow = {}"
            yield from between(
                connection,
                f"{table} row",
                *(
                    sql.SQL(query).format(sql.SQL(columns), sql.Identifier(table), one.flow.name)
                    for one in (disturbed, undisturbed)
                ),
            )
    yield from _between_topics(disturbed, undisturbed)


def between(connection: psycopg.Connection[Any], what: str, ours: sql.Composed, theirs: sql.Composed) -> Iterator[str]:
    """Rows that one of two queries has, and the other has not."""
    for words, one, other in (("only of the disturbed run", ours, theirs), ("only undisturbed", theirs, ours)):
        found = connection.execute(sql.SQL("{} except all {} order by 1").format(one, other)).fetchall()
        yield from some(what, words, [text for (text,) in found])


def some(what: str, words: str, found: Sequence[str]) -> Iterator[str]:
    """The first of them, and how many more there are."""
    yield from (f"{what} {words}: {text}" for text in found[:DIFFERENCES_SHOWN_MAX])
    if len(found) > DIFFERENCES_SHOWN_MAX:
        yield f"{what} {words}: {len(found) - DIFFERENCES_SHOWN_MAX} more"


def _between_topics(disturbed: Settings, undisturbed: Settings) -> Iterator[str]:
    ours, theirs = told(disturbed), told(undisturbed)
    for words, one, other in (("only of the disturbed run", ours, theirs), ("only undisturbed", theirs, ours)):
        wrong = sorted(key for key, record in one.rollups.items() if other.rollups.get(key) != record)
        yield from some("rollup in the topic", words, [str(Rollup.FromString(one.rollups[key])) for key in wrong])
        yield from some("closed window in the topic", words, [str(key) for key in sorted(one.closed - other.closed)])


def told(settings: Settings) -> Told:
    """Read the topic of rollups to its end."""
    rollups: dict[tuple[str, str, int], tuple[int, bytes]] = {}
    closed = set()
    for message in messages(settings, settings.output.topic):
        value = message.value() or b""
        rollup = Rollup.FromString(value)
        if not rollup.device_id:
            closed.add((message.partition() or 0, rollup.bucket))
            continue
        key = (rollup.device_id, rollup.metric, rollup.bucket)
        if key not in rollups or rollup.revision >= rollups[key][0]:
            rollups[key] = (rollup.revision, value)
    return Told({key: value for key, (_, value) in rollups.items()}, closed)


def messages(settings: Settings, topic: str) -> Iterator[Message]:
    """All that stands in a topic, partition by partition."""
    consumer = kafka_client.consumer(settings.kafka, "ionwax-chaos")
    try:
        for partition in range(settings.kafka.partitions):
            place = TopicPartition(topic, partition, 0)
            _, end = consumer.get_watermark_offsets(place, kafka_client.ANSWER_SECS)
            consumer.assign([place])
            while max(0, consumer.position([place])[0].offset) < end:  # below 0 where nothing was read
                for message in consumer.consume(10_000, 0.5):
                    if message.error() is None:
                        yield message
    finally:
        consumer.close()
