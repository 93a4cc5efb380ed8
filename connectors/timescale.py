"""PostgreSQL or TimescaleDB as the store of progress: claim, fence, seal (``connectors.checkpoint``).

Guarantee: progress, ledger and rows change together, by whoever claimed the partition last, or not at all. A database
that is away is waited for, at most ``outage_max_secs``; the transaction it interrupted is tried again, and the fence
decides whether it had gone through: its first statement finds the position it started from, or the one it went to.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from connectors import timescale_connection
from connectors.checkpoint import Standing
from connectors.timescale_connection import Connection
from connectors.timescale_outage import Outage
from connectors.timescale_partitions import MISSING_MAX, make_missing
from schemas.errors import FencedOff, OperatorError
from schemas.progress import Anchor, Claim, Counts, Judged, Progress
from schemas.settings import DatabaseSettings

log = logging.getLogger("ionwax.timescale")

_MS: Final = "(extract(epoch from closed_until) * 1000)::bigint"
_PROGRESS: Final = f"position, resume, start, {_MS}, ticks, judged, anchor_offset, anchor_timestamp, anchor_checksum"

_STANDING: Final = (
    f"select partition, topic_id, partitions, output, shape, {_PROGRESS} from progress where flow = %s and topic = %s"
)

_CLAIM: Final = f"""
    insert into progress
        (flow, topic, partition, generation, topic_id, partitions, output, shape, position, resume, start, claimed_by)
    select %(flow)s, %(topic)s, mine.partition, 1, %(topic_id)s, %(total)s, %(output)s, %(shape)s,
           mine.begin, mine.begin, mine.begin, %(claimed_by)s
    from unnest(%(partitions)s::int[], %(begins)s::bigint[]) as mine (partition, begin)
    order by mine.partition
    on conflict (flow, topic, partition) do update
        set generation = progress.generation + 1, claimed_by = excluded.claimed_by, claimed_at = now()
        where (progress.topic_id, progress.partitions, progress.output, progress.shape)
            = (excluded.topic_id, excluded.partitions, excluded.output, excluded.shape)
    returning partition, generation, {_PROGRESS}
"""

_FENCE: Final = """
    update progress
    set position = %(position)s, resume = %(resume)s,
        closed_until = timestamptz 'epoch' + %(closed_until)s::bigint * interval '1 millisecond',
        ticks = %(ticks)s, judged = %(judged)s, anchor_offset = %(anchor_offset)s,
        anchor_timestamp = %(anchor_timestamp)s, anchor_checksum = %(anchor_checksum)s, committed_at = now()
    where flow = %(flow)s and topic = %(topic)s and partition = %(partition)s
        and generation = %(generation)s and position = %(before)s
"""

_COUNTS: Final = tuple(field.name for field in fields(Counts))
_LEDGER: Final = f"""
    insert into ledger (flow, topic, partition, {", ".join(_COUNTS)})
    values (%(flow)s, %(topic)s, %(partition)s, {", ".join(f"%({name})s" for name in _COUNTS)})
    on conflict (flow, topic, partition) do update
    set {", ".join(f"{name} = ledger.{name} + excluded.{name}" for name in _COUNTS)}
"""


class TimescaleStore:
    """The progress of one flow. A worker's first call connects; its connection serves all its partitions.

    ``output`` is the table the flow writes, ``shape`` the settings that may not change while it lives, in words
    ("windows of 60 s"): progress made with others is refused. Counts: the ledger.
    """

    def __init__(self, database: DatabaseSettings, flow: str, output: str, shape: str) -> None:
        self.flow: Final = flow
        self._conninfo = database.conninfo
        self._outage_max_secs = database.outage_max_secs
        self._output = output
        self._shape = shape
        self._connections: dict[int, Connection] = {}  # worker's thread → its connection

    def standing(self, topic: str) -> Mapping[int, Standing]:
        """Progress on record, by partition. Raises ``OperatorError`` where this flow may not go on from it."""
        try:
            connection = self._connection(timescale_connection.connect_or_say)
            rows = connection.execute(_STANDING, [self.flow, topic]).fetchall()
            self._refuse_other_settings(rows)
            self._refuse_counting_twice(connection, topic, bool(rows))
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or self._unreachable(error) from None
        return {
            partition: Standing(_progress(row), topic_id, partitions)
            for partition, topic_id, partitions, _, _, *row in rows
        }

    def claim(self, topic: str, topic_id: str, partitions: int, begins: Mapping[int, int]) -> Mapping[int, Claim]:
        """Claim the partitions of ``begins``, all or none; from now on their former holders are fenced off."""
        ordered = sorted(begins.items())
        arguments = {
            "flow": self.flow,
            "topic": topic,
            "topic_id": topic_id,
            "total": partitions,
            "output": self._output,
            "shape": self._shape,
            "partitions": [partition for partition, _ in ordered],
            "begins": [begin for _, begin in ordered],
            "claimed_by": f"{socket.gethostname()} {os.getpid()}",
        }
        connection = self._connection(timescale_connection.connect_or_say)
        try:
            timescale_connection.begin(connection, timescale_connection.CLAIM_LOCK_SECS)
            rows = connection.execute(_CLAIM, arguments).fetchall()
            if len(rows) < len(ordered):
                raise OperatorError(
                    f"Progress of flow {self.flow} was made with other settings meanwhile: start again."
                )
            connection.commit()
        except psycopg.errors.LockNotAvailable:
            raise OperatorError(
                f"Progress of flow {self.flow} has been locked for {timescale_connection.CLAIM_LOCK_SECS} s by another "
                "transaction: see pg_stat_activity for who holds it, and start again."
            ) from None
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or self._unreachable(error) from None
        finally:
            if not connection.closed:
                connection.rollback()
        return {
            partition: Claim(self.flow, topic, partition, generation, topic_id, _progress(row))
            for partition, generation, *row in rows
        }

    def seal(self, claim: Claim, before: Progress, after: Progress, work: Callable[[Connection], Counts]) -> None:
        """Move progress from ``before`` to ``after`` with what ``work`` writes, in one transaction, once."""
        outage = Outage(self._conninfo, self._outage_max_secs)
        missing = 0
        while True:
            try:
                connection = self._connection(timescale_connection.connect)
                try:
                    self._try_to_seal(connection, claim, before, after, work, again=outage.began)
                except psycopg.errors.CheckViolation as error:
                    missing += 1
                    if missing > MISSING_MAX or not make_missing(connection, error):
                        raise
                    continue
            except timescale_connection.GONE as error:
                self.close()
                outage.wait(error)
            except psycopg.Error as error:
                self.close()
                raise timescale_connection.operator_error(error) or error from None
            except BaseException:
                self.close()
                raise
            else:
                outage.over()
                return

    def close(self) -> None:
        """Close the calling worker's connection; what was not committed is rolled back."""
        if (connection := self._connections.pop(threading.get_ident(), None)) is not None:
            connection.close()

    def _try_to_seal(
        self,
        connection: Connection,
        claim: Claim,
        before: Progress,
        after: Progress,
        work: Callable[[Connection], Counts],
        again: bool,
    ) -> None:
        key = {"flow": claim.flow, "topic": claim.topic, "partition": claim.partition}
        timescale_connection.begin(connection)
        moved = connection.execute(
            _FENCE, key | {"generation": claim.generation, "before": before.position} | _columns(after)
        ).rowcount
        if moved != 1:
            connection.rollback()
            if again and self._went_through(connection, claim, after):
                return
            raise FencedOff(
                f"Partition {claim.partition} of {claim.topic} was claimed by another process of flow {claim.flow} "
                "(or its progress was changed by hand): this one has written nothing and stops. Run one process a "
                "partition."
            )
        counts = work(connection)
        connection.execute(_LEDGER, key | {name: getattr(counts, name) for name in _COUNTS})
        connection.commit()

    @staticmethod
    def _went_through(connection: Connection, claim: Claim, after: Progress) -> bool:
        """Whether an earlier try was committed, though the answer to its COMMIT was lost.

        Its position would be there, under our generation. The fence has waited for it: the row was locked until
        that try's transaction ended.
        """
        found = connection.execute(
            "select generation, position from progress where flow = %s and topic = %s and partition = %s",
            [claim.flow, claim.topic, claim.partition],
        ).fetchone()
        return found == (claim.generation, after.position)

    def _connection(self, connect: Callable[[str, str], Connection]) -> Connection:
        """The calling worker's connection. By thread, since a libpq connection runs one transaction at a time."""
        me = threading.get_ident()  # threading.local would forget: the engine's threads are not Python's
        if me not in self._connections or self._connections[me].closed:
            self._connections[me] = connect(self._conninfo, f"ionwax {self.flow}")
        return self._connections[me]

    def _unreachable(self, error: psycopg.Error) -> OperatorError:
        return timescale_connection.unreachable(self._conninfo, error)

    def _refuse_other_settings(self, rows: list[tuple[Any, ...]]) -> None:
        for _, _, _, output, shape, *_ in rows:
            if (output, shape) != (self._output, self._shape):
                raise OperatorError(
                    f"Flow {self.flow} was begun with {shape} in table {output}; the settings say {self._shape} in "
                    f"table {self._output}. That is another flow: give it another flow.name and output.table, or put "
                    "the settings back."
                )

    def _refuse_counting_twice(self, connection: Connection, topic: str, begun: bool) -> None:
        """Refuse what would count a topic's readings into the same table again."""
        others = connection.execute(
            "select flow, topic from progress where output = %s and flow <> %s and position > start",
            [self._output, self.flow],
        ).fetchall()
        for flow, their_topic in others:
            if their_topic == topic:
                raise OperatorError(
                    f"Table {self._output} holds what flow {flow} counted from topic {topic}; flow {self.flow} would "
                    "count it a second time. Give it another output.table."
                )
        if not begun and not others and self._has_rows(connection):
            raise OperatorError(
                f"Table {self._output} has rows, but flow {self.flow} has no progress for topic {topic}: its readings "
                "would be counted a second time. Restore all tables together. Or take the rows over as they are: "
                f"./justw forfeit --settings FILE --flow {self.flow} --topic {topic} (it says where it can begin). "
                "Or give the flow another name and table."
            )

        if begun:
            self._refuse_lost_partitions(connection, topic)

    def _refuse_lost_partitions(self, connection: Connection, topic: str) -> None:
        query = """select array_agg(partition order by partition) from ledger where (flow, topic) = (%s, %s)
                   and not exists (select from progress as p where (p.flow, p.topic) = (%s, %s)
                                   and p.partition = ledger.partition)"""
        lost = connection.execute(query, [self.flow, topic] * 2).fetchone()
        if lost and lost[0]:
            raise OperatorError(
                f"Progress of partitions {lost[0]} of {topic} is gone, though flow {self.flow} has counted them: they "
                "would be counted a second time. Restore all tables of one dump."
            )

    def _has_rows(self, connection: Connection) -> bool:
        table = sql.Identifier(self._output)
        return bool(connection.execute(sql.SQL("select 1 from {} limit 1").format(table)).fetchone())


def _progress(row: list[Any]) -> Progress:
    position, resume, start, closed_until, ticks, judged, anchor_offset, anchor_timestamp, anchor_checksum = row
    anchor = None if anchor_offset is None else Anchor(anchor_offset, anchor_timestamp, anchor_checksum)
    return Progress(position, resume, start, closed_until, ticks, [Judged(*one) for one in judged], anchor)


def _columns(progress: Progress) -> dict[str, Any]:
    anchor = progress.anchor
    return {
        "position": progress.position,
        "resume": progress.resume,
        "closed_until": progress.closed_until,
        "ticks": Jsonb(dict(progress.ticks)),
        "judged": Jsonb([(one.offset, one.clock_skew_max_ms, one.event_age_max_ms) for one in progress.judged]),
        "anchor_offset": anchor and anchor.offset,
        "anchor_timestamp": anchor and anchor.timestamp,
        "anchor_checksum": anchor and anchor.checksum,
    }
