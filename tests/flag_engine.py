"""The engine of flags for tests: one partition, fed from logs in memory."""

from collections.abc import Sequence
from typing import Any

from dataflows.anomalies.flagging import Flags
from dataflows.anomalies.watch import Watch
from dataflows.decoding.rollup_log import decode_rollups
from schemas.flags import Episode, Judged, Snapshot
from schemas.progress import Claim, Progress
from tests.flag_logs import WATCHES, Record, batch
from tests.flag_oracle import MINUTE

BEGIN = Progress.begin(0)


def engine(
    progress: Progress = BEGIN, snapshot: Snapshot | None = None, told: Any = None, watches: Sequence[Watch] = WATCHES
) -> Flags:
    return Flags(watches, MINUTE, Claim("flags", "aggregates.minute", 0, 1, "id", progress), snapshot, told)


def feed(flags: Flags, records: Sequence[Record], start: int, end: int) -> Judged:
    return flags.feed(decode_rollups(batch(records, start, end), MINUTE))


def end_of(records: Sequence[Record]) -> int:
    return records[-1].offset + 1


def still_open(episodes: Sequence[Episode]) -> dict[str, Episode]:
    """What stands open on record, as ``connectors.timescale_flags.recall`` reads it back."""
    found: dict[str, Episode] = {}
    for one in episodes:
        if one.closed is None:
            bare = one.flag._replace(value=None, expected=None, lower=None, upper=None)
            found[one.episode_id] = one._replace(flag=bare)
        else:
            found.pop(one.episode_id, None)
    return found
