"""Late readings of one partition: each identity kept once, and told apart from copies of readings that were on time.

Where ``raw_archive`` runs (it has progress for the partition), a late reading waits in ``late_waiting`` until the
archive has passed its offset. Then it is a late duplicate if the archive holds its identity at a lower offset of the
partition, from the flow's start on: what was accepted there is in its row already, on time or late. Where no archive
runs, nothing waits, and a copy of a reading that was on time counts again.

Guarantee: what becomes of a late reading depends on the log alone, not on how far the archive is at the moment; late
readings are settled in the order of the log. Not covered: copies that retention has deleted from the archive, and ones
that the two flows judged by different limits of time.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from psycopg import sql

from connectors.timescale_connection import Connection
from schemas.frames import LATE
from schemas.progress import Claim

SETTLED_MAX: Final = 50_000  # in one transaction, where an archive has caught up: about a second of folding

_STATE: Final = """
    select (select position from progress where (flow, topic, partition, output) = (%s, %s, %s, %s)),
           exists (select from late_waiting where (flow, topic, partition) = (%s, %s, %s))
"""
_INSTANTS: Final = """
    timestamptz 'epoch' + event_time * interval '1 millisecond', value,
    timestamptz 'epoch' + seen_at * interval '1 millisecond'
"""
_ARRAYS: Final = """
    unnest(%b::text[], %b::text[], %b::bigint[], %b::float8[], %b::bigint[], %b::bigint[])
        with ordinality as late (device_id, metric, event_time, value, "offset", seen_at, place)
"""
_PUT: Final = f"""
    insert into late_waiting (flow, topic, partition, device_id, metric, "offset", event_time, value, seen_at)
    select %s, %s, %s, device_id, metric, "offset", {_INSTANTS} from {_ARRAYS}
"""
_TAKE: Final = """
    delete from late_waiting
    where ctid = any (array(
        select ctid from late_waiting
        where (flow, topic, partition) = (%s, %s, %s) and "offset" < %s order by "offset", metric limit %s
    ))
    returning "offset", (extract(epoch from seen_at) * 1000)::bigint,
        (extract(epoch from event_time) * 1000)::bigint, device_id, metric, value
"""  # by place: of a table that fills and empties the planner knows nothing; a join compared each row with each other
_COPIES: Final = """
    select late."offset", late.metric
    from unnest(%b::text[], %b::text[], %b::bigint[], %b::float8[], %b::bigint[])
        as late (device_id, metric, event_time, value, "offset"),
        lateral (
            select from {} as raw
            where raw.device_id = late.device_id and raw.metric = late.metric
                and raw.event_time = timestamptz 'epoch' + late.event_time * interval '1 millisecond'
                and raw.partition = %s and raw."offset" >= %s and raw."offset" < late."offset"
                and float8send(raw.value) = float8send(late.value)
            limit 1
        ) as copy
"""  # lateral with a limit: one look into the index each, whatever the planner believes of the table
_KEEP: Final = f"""
    insert into late_readings
        (device_id, metric, flow, partition, "offset", archived_until, event_time, value, seen_at)
    select device_id, metric, %s, %s, "offset", %s, {_INSTANTS} from {_ARRAYS}
    order by place
    on conflict do nothing
    returning "offset", metric
"""
OFFSET_MAX: Final = 2**63 - 1


class Archive(NamedTuple):
    """The raw archive: the flow that fills it, and its table."""

    flow: str
    table: str


class Settled(NamedTuple):
    """``new`` (``schemas.frames.LATE``) are to be folded into their rows, in this order.

    ``decided`` counts them and the late duplicates; ``waiting`` is how many more wait than before.
    """

    new: pl.DataFrame
    decided: int
    waiting: int


class LateReadings:
    """Those of the partition it was made for. ``any_wait``: whether another call may find something to settle."""

    def __init__(self, claim: Claim, length_ms: int, archive: Archive | None) -> None:
        self._claim = claim
        self._length_ms = length_ms
        self._archive = archive
        self._copies = sql.SQL(_COPIES).format(sql.Identifier(archive.table)) if archive is not None else None
        self.any_wait = archive is not None  # until looked: an earlier process may have left some

    def settle(self, transaction: Connection, late: pl.DataFrame) -> Settled:
        """Decide of ``late``, and of what waits, all that can be decided now."""
        arrived = len(late)
        archived, some_wait = self._state(transaction)
        limit = OFFSET_MAX if archived is None else archived
        decided = late
        if some_wait or (arrived and late["offset"][-1] >= limit):
            self._put(transaction, late)
            decided = self._take(transaction, limit)
            some_wait = self._state(transaction)[1]
        self.any_wait = some_wait
        new = self._kept(transaction, self._without_copies(transaction, decided, archived), archived)
        return Settled(new, len(decided), arrived - len(decided))

    @property
    def _key(self) -> tuple[str, str, int]:
        return self._claim.flow, self._claim.topic, self._claim.partition

    def _state(self, transaction: Connection) -> tuple[int | None, bool]:
        """The archive's position, None where none runs; and whether readings wait."""
        flow, table = self._archive or (None, None)
        asked = [flow, self._claim.topic, self._claim.partition, table, *self._key]
        found = transaction.execute(_STATE, asked).fetchone()
        assert found is not None
        return found[0], found[1]

    def _put(self, transaction: Connection, late: pl.DataFrame) -> None:
        if len(late):
            transaction.execute(_PUT, [*self._key, *_columns(late)])

    def _take(self, transaction: Connection, limit: int) -> pl.DataFrame:
        rows = transaction.execute(_TAKE, [*self._key, limit, SETTLED_MAX]).fetchall()
        schema = {name: LATE[name] for name in ("offset", "append_time", "event_time", "device_id", "metric", "value")}
        taken = pl.DataFrame(rows, schema=schema, orient="row").sort("offset", "metric")
        bucket = pl.col("event_time") // self._length_ms * self._length_ms
        return taken.with_columns(bucket.alias("bucket")).select(LATE.names())

    def _without_copies(self, transaction: Connection, late: pl.DataFrame, archived: int | None) -> pl.DataFrame:
        if not len(late) or archived is None or self._copies is None:
            return late
        arrays = _columns(late)[:5]
        asked = [*arrays, self._claim.partition, self._claim.progress.start]
        return _chosen(late, transaction.execute(self._copies, asked).fetchall(), keep=False)

    def _kept(self, transaction: Connection, late: pl.DataFrame, archived: int | None) -> pl.DataFrame:
        """Keep late readings, each identity once, the first in the log; answers with those that were new."""
        if not len(late):
            return late
        bits = late["value"].to_numpy().view(np.int64)
        first = late.with_columns(pl.Series("bits", bits)).unique(
            ["device_id", "metric", "event_time", "bits"], keep="first", maintain_order=True
        )
        asked = [self._claim.flow, self._claim.partition, archived, *_columns(first)]
        return _chosen(first, transaction.execute(_KEEP, asked).fetchall(), keep=True).select(LATE.names())


def _columns(late: pl.DataFrame) -> list[list[Any]]:
    names = ("device_id", "metric", "event_time", "value", "offset", "append_time")
    return [late[name].to_list() for name in names]


def _chosen(late: pl.DataFrame, found: Sequence[tuple[Any, ...]], keep: bool) -> pl.DataFrame:
    """The readings of ``late`` that are among ``found``, or the others; no metric stands twice in a message."""
    places = set(found)
    is_found = [place in places for place in zip(late["offset"], late["metric"], strict=True)]
    return late.filter(pl.Series(is_found, dtype=pl.Boolean) == keep)
