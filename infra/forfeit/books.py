"""Makes a decision hold: progress, ledger and the decision itself, of all partitions, in one transaction.

The generation grows with it, so a process that still runs is fenced off; and where one committed meanwhile, nothing is
changed.
"""

import getpass
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from psycopg.types.json import Jsonb

from connectors import timescale_connection
from connectors.checkpoint import Standing
from connectors.kafka import KafkaLog
from connectors.timescale_connection import Connection
from dataflows.decoding.log import decode_log
from dataflows.windowing import Windows
from infra.forfeit import flag_state
from infra.forfeit.decision import Decision, Wrong
from schemas.errors import OperatorError
from schemas.log import LogBatch
from schemas.progress import Progress
from schemas.settings import Settings

SILENT_SECS_MAX: Final = 10.0

_OPEN: Final = """
    select open - (select count(*) from late_waiting w
                   where (w.flow, w.topic, w.partition) = (l.flow, l.topic, l.partition))
    from ledger l where flow = %s and topic = %s and partition = %s
"""
_MOVE: Final = """
    update progress
    set generation = generation + 1, topic_id = %(topic_id)s, partitions = %(partitions)s,
        position = %(position)s, resume = %(resume)s, start = least(start, %(resume)s),
        anchor_offset = case when %(kept)s then anchor_offset end,
        anchor_timestamp = case when %(kept)s then anchor_timestamp end,
        anchor_checksum = case when %(kept)s then anchor_checksum end
    where flow = %(flow)s and topic = %(topic)s and partition = %(partition)s and position = %(before)s
    returning position - start - %(covered)s
"""
_BEFORE: Final = (
    "select to_jsonb(p), position - start from progress p where flow = %s and topic = %s and partition = %s"
)
_LEDGER: Final = """
    insert into ledger (flow, topic, partition, forfeited, lost, open) values (%s, %s, %s, %s, %s, -%s::bigint)
    on conflict (flow, topic, partition) do update
    set forfeited = ledger.forfeited + excluded.forfeited, lost = ledger.lost + excluded.lost,
        open = ledger.open + excluded.open
"""
_DECISION: Final = """
    insert into forfeits (flow, topic, partition, reason, first, next, offsets, lost, topic_id, before, by)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_AGES: Final = 1 << 50  # offsets: by so many those of before go down where a decision lets them begin anew
_BEHIND: Final = """
    update late_waiting set "offset" = "offset" - %s * (select count(*) from forfeits
        where (flow, topic, partition) = (%s, %s, %s))
    where (flow, topic, partition) = (%s, %s, %s) and "offset" >= 0
"""
_NEW: Final = """
    insert into progress
        (flow, topic, partition, generation, topic_id, partitions, output, shape, position, resume, start, claimed_by)
    select flow, topic, %s, 0, topic_id, partitions, output, shape, %s, %s, %s, 'forfeit'
    from progress where flow = %s and topic = %s limit 1
"""


class Given(NamedTuple):
    """What a decision costs one partition: offsets never accounted for (below 0: counted anew), and open readings."""

    offsets: int
    lost: int


def lost_by(settings: Settings, log: KafkaLog, partition: int, standing: Standing, decision: Decision) -> int:
    """Readings of open windows that the log no longer has: those on record, less those that it still refills."""
    progress = standing.progress
    if (decision.position, decision.resume) == (progress.position, progress.resume):
        return 0
    with timescale_connection.connect_or_say(settings.database.conninfo, "ionwax forfeit") as connection:
        row = connection.execute(_OPEN, [settings.flow.name, log.topic, partition]).fetchone()
    open_now = int(row[0]) if row else 0
    return open_now - _refilled(settings, log, partition, standing, decision) if open_now else 0


def _refilled(settings: Settings, log: KafkaLog, partition: int, standing: Standing, decision: Decision) -> int:
    """Rows that a process will find again between the decision's resume and position, by the core itself."""
    progress = replace(standing.progress, position=decision.position, resume=decision.resume)
    windows = Windows(settings.windows, progress, settings.mqtt.workers)
    reader = log.reader(partition, decision.resume)
    reached, heard_at = decision.resume, time.monotonic()
    try:
        while reached < decision.position and time.monotonic() < heard_at + SILENT_SECS_MAX:
            if (batch := reader.read()) is None:
                time.sleep(0.01)
                continue
            batch = _until(batch, decision.position)
            windows.feed(decode_log(batch, settings.decoding))
            reached, heard_at = batch.end, time.monotonic()
    finally:
        reader.close()
    return windows.open_rows


def _until(batch: LogBatch, end: int) -> LogBatch:
    kept = sum(offset < end for offset in batch.offsets)
    return replace(
        batch,
        end=min(batch.end, end),
        offsets=batch.offsets[:kept],
        append_times=batch.append_times[:kept],
        values=batch.values[:kept],
        headers={row: headers for row, headers in batch.headers.items() if row < kept},
    )


def hold(
    settings: Settings,
    flow: str,
    topic: str,
    topic_id: str,
    partitions: Mapping[int, int],
    standing: Mapping[int, Standing],
    decisions: Mapping[int, tuple[Decision, int]],
) -> Mapping[int, Given]:
    """Write decisions down and let progress go on by them, each with what it loses; all, or none.

    ``partitions`` are all that the topic has, with the first offset of each.
    """
    with (
        timescale_connection.connect_or_say(settings.database.conninfo, "ionwax forfeit") as connection,
        connection.transaction(),
    ):
        given = {}
        for partition, (decision, lost) in sorted(decisions.items()):
            place = _Place(flow, topic, partition, topic_id, len(partitions))
            given[partition] = _hold(connection, place, standing[partition].progress, decision, lost)
            if flow == settings.flags.name:
                anew = standing[partition].partitions != len(partitions)
                length_ms = settings.windows.length_secs * 1000
                flag_state.go_on(connection, (flow, topic, partition), decision.resume, length_ms, anew)
        if any(decision.wrong is Wrong.GROWN for decision, _ in decisions.values()):
            for partition, low in sorted(partitions.items()):
                if partition not in standing:
                    connection.execute(_NEW, [partition, low, low, low, flow, topic])
    return given


class _Place(NamedTuple):
    """A partition of a flow, and of which log it is from now on."""

    flow: str
    topic: str
    partition: int
    topic_id: str
    partitions: int


def _hold(connection: Connection, place: _Place, progress: Progress, decision: Decision, lost: int) -> Given:
    key = place[:3]
    row = connection.execute(_BEFORE, key).fetchone()
    assert row is not None, "there is progress: it was read before"
    before, covered = row
    kept = decision.same_log and progress.anchor is not None and progress.anchor.offset < decision.position
    moved = connection.execute(
        _MOVE,
        place._asdict()
        | {"position": decision.position, "resume": decision.resume, "kept": kept}
        | {"before": progress.position, "covered": covered},
    ).fetchone()
    if moved is None:
        raise OperatorError(
            f"Partition {place.partition} moved on meanwhile: a process of flow {place.flow} runs. Stop it first."
        )
    offsets = int(moved[0])
    connection.execute(_LEDGER, [*key, offsets, lost, lost])
    who = f"{getpass.getuser()} at {socket.gethostname()}"
    first, then = progress.position, decision.position
    connection.execute(
        _DECISION, [*key, decision.wrong, first, then, offsets, lost, place.topic_id, Jsonb(before), who]
    )
    if not decision.same_log or then < first:
        # What waits for the archive to pass an offset would wait for another record's, and meet it there. Below 0 the
        # archive has passed it.
        connection.execute(_BEHIND, [_AGES, *key, *key])
    return Given(offsets, lost)
