"""Another log under the old name: what a flow must refuse before it has claimed or written anything.

First the topic is deleted and made again, which its id tells. Then the database is told that this is its id, as where a
cluster was restored from elsewhere: only the anchor, the last record accounted for, tells now.
"""

import time
from collections.abc import Iterator
from typing import Final

import psycopg
from confluent_kafka import KafkaException

from connectors import kafka_client, kafka_topics
from connectors.kafka import KafkaLog
from connectors.kafka_client import ANSWER_SECS
from connectors.kafka_sink import Publisher
from connectors.stopping import EXIT_OPERATOR
from infra.chaos.flows import Flow
from schemas.errors import OperatorError
from schemas.record import Record
from schemas.settings import Settings
from schemas.telemetry_pb2 import Telemetry

RECORDS_BEYOND: Final = 200  # the position: what a flow would count that took the log for its own
SPACING_MS: Final = 100
LOOK_SECS: Final = 0.1
ENDS_SECS_MAX: Final = 90.0  # a machine that is busy takes long to start a process


def wrongs(settings: Settings, flow: Flow) -> Iterator[str]:
    """What a flow does that it must not. Afterwards the topic holds nothing of what it held."""
    before = _standing(settings)
    log = _made_again(settings, [position for _, position in before[0]])
    yield from _refusal(settings, flow, before, "a topic made again", "was deleted and made again")
    with psycopg.connect(settings.database.conninfo) as connection:
        connection.execute("update progress set topic_id = %s where flow = %s", [log.identity(), settings.flow.name])
    yield from _refusal(settings, flow, before, "other records in the log", "differs from the one on record")


def _refusal(settings: Settings, flow: Flow, before: object, what: str, words: str) -> Iterator[str]:
    flow.log.unlink(missing_ok=True)
    flow.start()
    deadline = time.monotonic() + ENDS_SECS_MAX
    while flow.running and time.monotonic() < deadline:
        time.sleep(LOOK_SECS)
    if flow.running:
        flow.kill()
        yield f"{what}: the flow went on with it"
    elif flow.statuses != [EXIT_OPERATOR] or words not in flow.log.read_text():
        yield f"{what}: the flow ended with {flow.statuses}: {flow.log.read_text()[-500:]}"
    if _standing(settings) != before:
        yield f"{what}: the flow has written something"


def _standing(settings: Settings) -> tuple[list[tuple[int, int]], list[tuple[object, ...]]]:
    """Generations and positions; number and sum of rows."""
    with psycopg.connect(settings.database.conninfo) as connection:
        progress = connection.execute(
            "select generation, position from progress where flow = %s order by partition", [settings.flow.name]
        ).fetchall()
        rows = connection.execute(
            f"select count(*), sum(count), sum(revision) from {settings.output.table}".encode()
        ).fetchall()
    return progress, rows


def _made_again(settings: Settings, positions: list[int]) -> KafkaLog:
    """The topic, deleted and made again, with records of a device of its own up to beyond the positions."""
    admin = kafka_client.admin(settings.kafka)
    topic = settings.kafka.events_topic
    admin.delete_topics([topic])[topic].result(ANSWER_SECS)
    deadline = time.monotonic() + ANSWER_SECS
    while True:
        try:
            kafka_topics.ensure(settings)
            break
        except (OperatorError, KafkaException):  # being deleted takes a moment
            if time.monotonic() >= deadline:
                raise
            time.sleep(LOOK_SECS)
    publisher = Publisher(settings.kafka)
    now_ms = time.time_ns() // 1_000_000
    for partition, position in enumerate(positions):
        ends = position + RECORDS_BEYOND
        for offset in range(ends):
            ts = now_ms - SPACING_MS * (ends - offset)
            value = Telemetry(device_id="intruder", ts=ts, metrics={"temperature": offset}).SerializeToString()
            publisher.send(Record(topic, value, b"intruder", partition=partition, timestamp_ms=ts))
    publisher.flush()
    return KafkaLog(settings.kafka, topic, "ionwax-chaos")
