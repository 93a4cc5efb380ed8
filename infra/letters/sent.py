"""Which dead letters were sent again: kept in the database, so that none is sent twice.

Guarantee: exactly once, whatever is killed. A letter is noted before its records are sent, with the ends of the log's
partitions as they were then, and confirmed when all are durable. What is noted and not confirmed is looked for in the
log from those ends on: each record says which letter it is of.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from connectors import timescale_connection
from connectors.timescale_connection import Connection
from schemas.errors import OperatorError

LOCK: Final = 0x7265_6472_6976  # "redriv": advisory locks are numbers of the whole database

_NOTE: Final = """
    insert into redriven (topic, topic_id, partition, "offset", records, log_ends)
    select %s, %s, partition, place, records, %s
    from unnest(%s::int[], %s::bigint[], %s::int[]) as letters (partition, place, records)
"""
_MINE: Final = (
    'topic = %s and topic_id = %s and (partition, "offset") in (select * from unnest(%s::int[], %s::bigint[]))'
)


class Place(NamedTuple):
    """Where a letter stands."""

    partition: int
    offset: int


class Doubt(NamedTuple):
    """Letters whose records may be in the log, or not, from ``log_ends`` on."""

    letters: Collection[Place]
    log_ends: Mapping[int, int]


class SentAgain:
    """The letters of one topic that were sent again."""

    def __init__(self, connection: Connection, topic: str, topic_id: str) -> None:
        self._connection = connection
        self._of = (topic, topic_id)

    def all(self) -> set[Place]:
        """Those known to be in the log."""
        query = 'select partition, "offset" from redriven where topic = %s and topic_id = %s and sent'
        return {Place(*row) for row in self._connection.execute(query, self._of)}

    def doubt(self) -> Doubt | None:
        """Those that a killed redrive left; it is one batch, since each is settled before the next is begun."""
        query = 'select partition, "offset", log_ends from redriven where topic = %s and topic_id = %s and not sent'
        rows = self._connection.execute(query, self._of).fetchall()
        if not rows:
            return None
        return Doubt({Place(*row[:2]) for row in rows}, {int(key): end for key, end in rows[0][2].items()})

    def note(self, letters: Mapping[Place, int], log_ends: Mapping[int, int]) -> None:
        """Remember that letters are about to be sent, as so many records each."""
        partitions, offsets = _columns(list(letters))
        self._connection.execute(_NOTE, [*self._of, Jsonb(dict(log_ends)), partitions, offsets, [*letters.values()]])

    def confirm(self, letters: Collection[Place]) -> None:
        self._connection.execute(f"update redriven set sent = true where {_MINE}".encode(), self._mine(letters))

    def forget(self, letters: Collection[Place]) -> None:
        """They were not sent after all."""
        self._connection.execute(f"delete from redriven where {_MINE}".encode(), self._mine(letters))

    def _mine(self, letters: Collection[Place]) -> list[object]:
        return [*self._of, *_columns(list(letters))]


def _columns(letters: Sequence[Place]) -> tuple[list[int], list[int]]:
    return [one.partition for one in letters], [one.offset for one in letters]


@contextmanager
def sent_again(conninfo: str, topic: str, topic_id: str, alone: bool = False) -> Iterator[SentAgain]:
    """What was sent again. ``alone``: to send more, and nobody else may meanwhile; else to look."""
    with timescale_connection.connect_or_say(conninfo, "ionwax redrive") as connection:
        if alone and connection.execute("select pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
            raise OperatorError("Another redrive runs on this database: wait for it.")
        try:
            yield SentAgain(connection, topic, topic_id)
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or error from None
