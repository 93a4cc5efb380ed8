"""Telemetry that goes into the log as it came: devices that send protobuf already send what the log holds.

Rule: only what the log side reads without suspicion is passed on, by the same check of whole columns, and only if there
is nothing else in it, so that every parser of every reader of the log reads the same. Anything else, unknown fields
for one, is decoded and judged message by message, like every other format, and written anew.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from dataflows.decoding.columns import ROWS_MAX, canonical_sizes, parse_all, suspicious, with_zeros
from schemas.telemetry_pb2 import Telemetry


class Passed(NamedTuple):
    """A payload with nothing wrong in its metrics, and what is still to be compared: "" and 0 where it does not say."""

    device_id: str
    ts: int


def passed(payloads: Sequence[bytes], metrics_max: int) -> list[Passed | None]:
    """For each of ``payloads``, all taken for ``Telemetry``: what it says; None where it cannot go on as it is."""
    found: list[Passed | None] = []
    for first in range(0, len(payloads), ROWS_MAX):
        part = payloads[first : first + ROWS_MAX]
        sizes = list(map(len, part))
        columns = parse_all(part, sizes)
        device_ids = pl.Series(pl.from_arrow(columns.device_id)).to_list()
        found += map(Passed, device_ids, columns.ts.tolist())
        flags = suspicious(columns, sizes, metrics_max) | (canonical_sizes(columns) != np.asarray(sizes))
        for row in np.flatnonzero(with_zeros(columns) & ~flags).tolist():
            flags[row] = not _has_nothing_else(part[row])
        for row in np.flatnonzero(flags).tolist():
            found[first + row] = None
    return found


def _has_nothing_else(telemetry: bytes) -> bool:
    """Whether all of it is ``Telemetry``. Its size tells, unless a 0 was left out and something else put in."""
    try:
        return len(UnknownFieldSet(Telemetry.FromString(telemetry))) == 0
    except DecodeError:
        return False
