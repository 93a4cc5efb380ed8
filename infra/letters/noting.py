"""Counts dead letters by device and minute into the table ``rejections``: what a gap in the minutes may be due to.

Guarantee: each letter is counted once, whatever is killed and however many do it at once: counts and the place they
reach are one transaction, guarded by the place before. A letter of no device that could be told is passed by.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

import psycopg

from connectors import timescale_connection
from connectors.kafka import KafkaLog
from connectors.timescale_connection import Connection
from dataflows.decoding.names import flaw_in
from dataflows.decoding.reasons import Reason
from dataflows.decoding.times import TIME_MAX_MS
from dataflows.decoding.topics import TopicTemplate, compile_topic
from infra.letters.letter import GROUP, Letter, letters
from schemas.settings import Settings

AT_ONCE: Final = 10_000
MINUTE_MS: Final = 60_000
REASONS: Final = frozenset(map(str, Reason))

_NOTED: Final = "select partition, next from letters_noted where topic = %s and topic_id = %s"
_MOVE: Final = """
    insert into letters_noted (topic, topic_id, partition, next) values (%s, %s, %s, %s)
    on conflict (topic, topic_id, partition) do update set next = excluded.next where letters_noted.next = %s
"""
_GIVEN: Final = """
    select timestamptz 'epoch' + minute * interval '1 minute', device_id, reason, letters
    from unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) as given (minute, device_id, reason, letters)
"""
_PARTITIONS: Final = f"select make_partitions('rejections', array(select distinct one from ({_GIVEN}) as given (one)))"
_COUNT: Final = f"""
    insert into rejections (minute, device_id, reason, letters) {_GIVEN} order by 2, 1, 3
    on conflict (device_id, minute, reason) do update set letters = rejections.letters + excluded.letters
"""


def note(settings: Settings) -> int:
    """Count the letters that came since the last time; how many. Raises ``OperatorError``."""
    topic = settings.kafka.dead_letter_topic
    log = KafkaLog(settings.kafka, topic, GROUP)
    of = (topic, log.identity())
    template = compile_topic(settings.mqtt.topic, settings.mqtt.device_id_template)
    counted = 0
    with timescale_connection.connect_or_say(settings.database.conninfo, "ionwax letters") as connection:
        try:
            noted = dict.fromkeys(log.partitions(), 0) | dict(connection.execute(_NOTED, of).fetchall())
            found = letters(settings.kafka, begins=noted)
            while some := list(islice(found, AT_ONCE)):
                if not _count(connection, of, noted, some, template):
                    break  # somebody else does it
                counted += len(some)
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or error from None
    return counted


def _count(
    connection: Connection, of: tuple[str, str], noted: dict[int, int], some: Sequence[Letter], template: TopicTemplate
) -> bool:
    """Count some letters and move on, or neither."""
    reached = {one.partition: one.offset + 1 for one in some}
    with connection.transaction() as transaction:
        for partition, end in sorted(reached.items()):
            if connection.execute(_MOVE, (*of, partition, end, noted[partition])).rowcount != 1:
                raise psycopg.Rollback(transaction)
        if columns := _columns(rejections(some, template)):
            connection.execute(_PARTITIONS, columns)
            connection.execute(_COUNT, columns)
        noted |= reached
        return True
    return False


def rejections(some: Sequence[Letter], template: TopicTemplate) -> Mapping[tuple[int, str, str], int]:
    """(minutes since 1970, device, reason) → letters, of those that say all three: anybody may write to the topic."""
    known = ((one, one.device(template)) for one in some if one.reason in REASONS and one.time_ms <= TIME_MAX_MS)
    return Counter((one.time_ms // MINUTE_MS, device, one.reason) for one, device in known if flaw_in(device) is None)


def _columns(counts: Mapping[tuple[int, str, str], int]) -> list[list[object]]:
    return [list(column) for column in zip(*((*key, often) for key, often in counts.items()), strict=True)]
