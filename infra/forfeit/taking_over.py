"""Progress that is gone while its rows are there: begun anew, and the books made again from the rows.

As after a restore of some tables and not of others. What the log's offsets were is not known any more; the rows are
taken over as they are, readings as counted, those in ``late_readings`` as late. Rows of flags count nothing, and are
written over by themselves: of that flow only what it had learned is forgotten. Rows of the archive have their offsets,
so it can go on behind the last one of each partition, and nothing is there twice or missing.
"""

import getpass
import socket
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from psycopg import sql
from psycopg.types.json import Jsonb

from connectors import timescale_connection
from connectors.timescale_connection import Connection
from infra.forfeit.decision import At
from schemas.errors import OperatorError
from schemas.settings import Settings

REASON: Final = "progress was gone; the rows were taken over"

_FORGET: Final = ("ledger", "ledger_days", "late_waiting", "flag_states")
_PROGRESS: Final = """
    insert into progress (flow, topic, partition, generation, topic_id, partitions, output, shape, position, resume,
                          start, closed_until, claimed_by)
    select %s, %s, partition, 0, %s, %s, %s, %s, begin, begin, begin, {closed_until}, 'forfeit'
    from unnest(%s::int[], %s::bigint[]) as mine (partition, begin)
"""
_CLOSED_UNTIL: Final = "(select max(bucket) + {} * interval '1 second' from {})"
_LATE: Final = """
    insert into ledger_days (flow, topic, partition, day, late)
    select flow, {topic}, partition,
           (date_bin({length} * interval '1 second', event_time, timestamptz 'epoch') at time zone 'utc')::date,
           count(*)
    from late_readings where flow = {flow} group by 1, 2, 3, 4
"""
_COUNTED: Final = """
    insert into ledger_days (flow, topic, partition, day, counted)
    select {flow}, {topic}, {first}, (bucket at time zone 'utc')::date, sum(count) - sum(revision)
    from {table} group by 4
    on conflict (flow, topic, partition, day) do update set counted = excluded.counted
"""
_ARCHIVED: Final = """
    insert into ledger_days (flow, topic, partition, day, counted)
    select {flow}, {topic}, partition, (event_time at time zone 'utc')::date, count(*) from {table} group by 3, 4
"""
_LAST: Final = 'select partition, max("offset") from {} group by 1'
_LEDGER: Final = """
    insert into ledger (flow, topic, partition, readings, counted, late)
    select flow, topic, partition, sum(counted + late), sum(counted), sum(late)
    from ledger_days where flow = %s and topic = %s group by 1, 2, 3
    union all
    select %s, %s, partition, 0, 0, 0 from unnest(%s::int[]) as mine (partition)
    where partition not in (select partition from ledger_days where flow = %s and topic = %s)
"""
_DECISIONS: Final = """
    insert into forfeits (flow, topic, partition, reason, first, next, offsets, lost, topic_id, before, by)
    select {flow}, {topic}, partition, %s, begin, begin, -given.offsets, -given.lost, %s, %s, %s
    from unnest(%s::int[], %s::bigint[]) as mine (partition, begin),
         lateral (select coalesce(sum(offsets), 0) as offsets, coalesce(sum(lost), 0) as lost from forfeits f
                  where flow = {flow} and topic = {topic} and f.partition = mine.partition) as given
"""  # what was given up before is of books that are forgotten


class Rows(Enum):
    """What the rows of a flow are; the words for: it took them in, and what is in the log may be there already."""

    ROLLUPS = ("counted", "is in the rows already")
    FLAGS = ("judged", "was judged before")
    READINGS = ("archived", "is in the table already")


class Flow(NamedTuple):
    """A flow whose rows can be taken over, and what its progress says of it."""

    name: str
    topic: str
    table: str
    shape: str
    rows: Rows

    @classmethod
    def of(cls, settings: Settings, name: str, topic: str) -> "Flow | None":
        """The flow of that name; None where it is another one's."""
        windows = f"windows of {settings.windows.length_secs} s"
        if (name, topic) == (settings.flow.name, settings.kafka.events_topic):
            return cls(name, topic, settings.output.table, windows, Rows.ROLLUPS)
        if (name, topic) == (settings.flags.name, settings.output.topic):
            return cls(name, topic, settings.flags.table, f"flags of {windows}", Rows.FLAGS)
        if (name, topic) == (settings.archive.name, settings.kafka.events_topic):
            return cls(name, topic, settings.archive.table, "every reading", Rows.READINGS)
        return None


def is_gone(settings: Settings, flow: Flow) -> bool:
    """Whether a flow has rows and no progress."""
    with timescale_connection.connect_or_say(settings.database.conninfo, "ionwax forfeit") as connection:
        query = sql.SQL(
            "select not exists (select from progress where flow = %s and topic = %s) and exists (select from {})"
        )
        row = connection.execute(query.format(sql.Identifier(flow.table)), [flow.name, flow.topic]).fetchone()
    return row == (True,)


def take_over(
    settings: Settings, flow: Flow, topic_id: str, bounds: Mapping[int, tuple[int, int]], at: At | None, yes: bool
) -> Mapping[int, int]:
    """Where each partition begins. Raises ``OperatorError`` where ``at`` does not say."""
    begins = _begins(settings, flow, bounds, at)
    if yes:
        with (
            timescale_connection.connect_or_say(settings.database.conninfo, "ionwax forfeit") as connection,
            connection.transaction(),
        ):
            _take_over(connection, flow, settings.windows.length_secs, topic_id, begins)
    return begins


def _begins(settings: Settings, flow: Flow, bounds: Mapping[int, tuple[int, int]], at: At | None) -> Mapping[int, int]:
    if at == "beginning":
        return {partition: low for partition, (low, _) in bounds.items()}
    if at == "end":
        return {partition: high for partition, (_, high) in bounds.items()}
    if at == "position" and flow.rows is Rows.READINGS:
        return _behind_rows(settings, flow, bounds)
    took, already = flow.rows.value
    behind = (
        "--at position (all behind the last record that the table holds is), " if flow.rows is Rows.READINGS else ""
    )
    raise OperatorError(
        f"Table {flow.table} has rows, and flow {flow.name} has no progress: which offsets it has {took} is not on "
        f"record. Better restore all tables of one dump. Else give {behind}--at end (nothing that is in the log now is "
        f"{took}) or --at beginning (all of it is {took}, also what {already})."
    )


def _behind_rows(settings: Settings, flow: Flow, bounds: Mapping[int, tuple[int, int]]) -> Mapping[int, int]:
    """Of each partition the offset after the last one in the table; its first where there is none."""
    with timescale_connection.connect_or_say(settings.database.conninfo, "ionwax forfeit") as connection:
        last = dict[int, int](connection.execute(sql.SQL(_LAST).format(sql.Identifier(flow.table))).fetchall())
    for partition, (_, high) in bounds.items():
        if last.get(partition, -1) >= high:
            raise OperatorError(
                f"Partition {partition} of {flow.topic} ends at offset {high}, and table {flow.table} holds offset "
                f"{last[partition]}: that is of another log. Give --at beginning, or --at end."
            )
    return {partition: max(low, last.get(partition, -1) + 1) for partition, (low, _) in bounds.items()}


def _take_over(
    connection: Connection, flow: Flow, length_secs: float, topic_id: str, begins: Mapping[int, int]
) -> None:
    table, partitions, place = sql.Identifier(flow.table), sorted(begins), [flow.name, flow.topic]
    offsets = [begins[partition] for partition in partitions]
    before = _books(connection, *place)
    for name in _FORGET:
        connection.execute(sql.SQL("delete from {} where flow = %s and topic = %s").format(sql.Identifier(name)), place)
    has_windows = flow.rows is Rows.ROLLUPS
    closed_until = sql.SQL(_CLOSED_UNTIL).format(length_secs, table) if has_windows else sql.SQL("null")
    connection.execute(
        sql.SQL(_PROGRESS).format(closed_until=closed_until),
        [*place, topic_id, len(partitions), flow.table, flow.shape, partitions, offsets],
    )
    of = {"flow": flow.name, "topic": flow.topic}
    if has_windows:
        connection.execute(sql.SQL(_LATE).format(length=length_secs, **of))
        connection.execute(sql.SQL(_COUNTED).format(first=partitions[0], table=table, **of))
    if flow.rows is Rows.READINGS:
        connection.execute(sql.SQL(_ARCHIVED).format(table=table, **of))
    connection.execute(_LEDGER, [*place, *place, partitions, *place])
    who = f"{getpass.getuser()} at {socket.gethostname()}"
    connection.execute(sql.SQL(_DECISIONS).format(**of), [REASON, topic_id, Jsonb(before), who, partitions, offsets])


def _books(connection: Connection, flow: str, topic: str) -> list[object]:
    """The ledger as it is forgotten."""
    query = "select to_jsonb(l) from ledger l where flow = %s and topic = %s order by partition"
    return [row for (row,) in connection.execute(query, [flow, topic])]
