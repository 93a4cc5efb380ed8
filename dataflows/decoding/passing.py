"""Telemetry that goes into the log as it came: devices that send protobuf already send what the log holds.

Rule: only what the log side reads without suspicion is passed on, by the same check of whole columns, and only if there
is nothing else in it, so that every parser of every reader of the log reads the same. Anything else, unknown fields
for one, is decoded and judged message by message, like every other format, and written anew. Whether a payload passes
does not depend on its neighbours: those that are alike are only looked at sooner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from dataflows.decoding.alike import read_alike
from dataflows.decoding.columns import (
    ROWS_MAX,
    Flags,
    Ints,
    canonical_sizes,
    out_of_bounds,
    parse_all,
    suspicious,
    with_zeros,
)
from schemas.packed import Packed
from schemas.telemetry_pb2 import Telemetry


@dataclass(frozen=True, slots=True)
class Passing:
    """Payloads taken for ``Telemetry``, a row each.

    ``good``: nothing is wrong in its metrics, and it can go on as it is. Of those, ``device_ids`` and ``ts`` are still
    to be judged: "" and 0 where one does not say.
    """

    device_ids: list[str]
    ts: Ints
    good: Flags


def passing(payloads: Sequence[bytes], metrics_max: int) -> Passing:
    """What ``payloads``, at least one, say."""
    parts = [_part(payloads[first : first + ROWS_MAX], metrics_max) for first in range(0, len(payloads), ROWS_MAX)]
    if len(parts) == 1:
        return parts[0]
    return Passing(
        [device_id for part in parts for device_id in part.device_ids],
        np.concatenate([part.ts for part in parts]),
        np.concatenate([part.good for part in parts]),
    )


def _part(payloads: Sequence[bytes], metrics_max: int) -> Passing:
    """Payloads that are alike at a third of the cost; those of them that are not plainly good are parsed."""
    alike = read_alike(Packed.of(payloads))
    if alike is None:
        return _parsed(list(payloads), metrics_max)
    columns, odd = alike
    model = payloads[int(np.argmin(odd))]
    good = ~(odd | out_of_bounds(columns, metrics_max)) & (columns.ts >= _least_time(model))
    found = Passing(pl.Series(pl.from_arrow(columns.device_id)).to_list(), columns.ts, good)
    if others := np.flatnonzero(~good).tolist():
        parsed = _parsed([payloads[row] for row in others], metrics_max)
        for row, device_id in zip(others, parsed.device_ids, strict=True):
            found.device_ids[row] = device_id
        found.ts[others], found.good[others] = parsed.ts, parsed.good
    return found


def _least_time(telemetry: bytes) -> int:
    """The least time that takes as many bytes as that of ``telemetry``; a 0 takes none."""
    first = 3 + telemetry[1]  # after the device id, its length and two tags
    last = first
    while telemetry[last] > 0x7F:
        last += 1
    return 1 << 7 * (last - first)  # 1 where it takes one byte


def _parsed(payloads: list[bytes], metrics_max: int) -> Passing:
    sizes = list(map(len, payloads))
    columns = parse_all(payloads, sizes)
    flags = suspicious(columns, sizes, metrics_max) | (canonical_sizes(columns) != np.asarray(sizes))
    for row in np.flatnonzero(with_zeros(columns) & ~flags).tolist():
        flags[row] = not _has_nothing_else(payloads[row])
    return Passing(pl.Series(pl.from_arrow(columns.device_id)).to_list(), columns.ts, ~flags)


def _has_nothing_else(telemetry: bytes) -> bool:
    """Whether all of it is ``Telemetry``. Its size tells, unless a 0 was left out and something else put in."""
    try:
        return len(UnknownFieldSet(Telemetry.FromString(telemetry))) == 0
    except DecodeError:
        return False
