"""Reading what is to be verified: records of the log, payloads of the dead letter, rows of the table.

Guarantee: all that is read of the database is of one instant, so that a flow that goes on meanwhile changes nothing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from confluent_kafka import KafkaException, TopicPartition
from psycopg import sql

from connectors import kafka_client, timescale_connection
from connectors.kafka import KafkaLog
from connectors.kafka_client import ANSWER_SECS
from connectors.timescale_connection import Connection
from infra.verify.replay import Key, Record, Row
from schemas.errors import OperatorError
from schemas.settings import Settings

GROUP: Final = "ionwax-verify"  # of the client library's making; it holds no positions
SILENT_SECS_MAX: Final = 30.0
ROWS_AT_ONCE: Final = 10_000

_ROWS: Final = """
    select device_id, metric, (extract(epoch from bucket) * 1000)::bigint, count, mean, m2, min, max, first, last,
           (extract(epoch from first_ts) * 1000)::bigint, (extract(epoch from last_ts) * 1000)::bigint
    from {} where bucket >= to_timestamp(%s / 1000.0)
"""


def records(settings: Settings, topic: str, partition: int, begin: int, end: int) -> Iterator[Record]:
    """Records of [begin, end). Raises ``OperatorError`` where the log falls silent before ``end``."""
    reader = KafkaLog(settings.kafka, topic, GROUP).reader(partition, begin)
    reached, heard_at = begin, time.monotonic()
    try:
        while reached < end:
            batch = reader.read()
            if batch is None:
                reached = max(reached, reader.reached())
                if time.monotonic() - heard_at > SILENT_SECS_MAX:
                    raise OperatorError(
                        f"{topic}, partition {partition}: silent for {SILENT_SECS_MAX:.0f} s at offset {reached}; "
                        f"{end - reached} offsets are not verified. Is Kafka well?"
                    )
                time.sleep(0.01)
                continue
            reached, heard_at = batch.end, time.monotonic()
            for row, (offset, append, value) in enumerate(
                zip(batch.offsets, batch.append_times, batch.values, strict=True)
            ):
                if offset < end:
                    headers = dict(batch.headers.get(row, ()))
                    worker = headers.get("ingest-node-id", b"").decode(errors="replace") if "tick" in headers else None
                    yield Record(offset, append, value, worker)
    finally:
        reader.close()


def payloads(settings: Settings) -> Iterator[bytes]:
    """Everything that stands in the dead letter."""
    topic = settings.kafka.dead_letter_topic
    log = KafkaLog(settings.kafka, topic, GROUP)
    for partition in log.partitions():
        low, high = log.bounds(partition)
        for one in records(settings, topic, partition, low, high):
            yield one.value


def first_offset_since(settings: Settings, topic: str, partition: int, since_ms: int) -> int | None:
    """The first offset appended at or after ``since_ms``; None where there is none."""
    consumer = kafka_client.consumer(settings.kafka, GROUP)
    try:
        (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, since_ms)], timeout=ANSWER_SECS)
    except KafkaException as error:
        raise kafka_client.unreachable(settings.kafka, error) from None
    finally:
        consumer.close()
    return found.offset if found.offset >= 0 else None


def rows(connection: Connection, table: str, since_ms: int) -> Iterator[tuple[Key, Row]]:
    """Rows of the table from a bucket on, a few thousand at a time."""
    query = sql.SQL(_ROWS).format(sql.Identifier(table))
    with connection.cursor("verify") as cursor:  # of the server: it keeps the rows, we take some at a time
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query, [since_ms])
        for device_id, metric, bucket, *row in cursor:
            yield (device_id, metric, bucket), Row(*row)


@contextmanager
def snapshot(conninfo: str) -> Iterator[Connection]:
    """The database as it is now, for as long as the block lasts; one connection, also through PgBouncer.

    Meanwhile the server keeps old versions of rows, as it does for a dump. Raises ``OperatorError``.
    """
    with timescale_connection.connect_or_say(conninfo, "ionwax verify") as connection:
        try:
            connection.execute("begin transaction isolation level repeatable read read only")
            connection.execute("set local idle_in_transaction_session_timeout = 0")  # the log is read meanwhile
            connection.execute("set local statement_timeout = 0")
            yield connection
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or error from None
