"""Telemetry that goes into the log as it came: devices that send protobuf already send what the log holds.

Rule: only what the log side will read without suspicion is passed on, by the same check of whole columns, so that both
sides read the same. Anything else is decoded and judged message by message, like every other format.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from dataflows.decoding.columns import ROWS_MAX, parse_all, suspicious


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
        for row in np.flatnonzero(suspicious(columns, sizes, metrics_max)).tolist():
            found[first + row] = None
    return found
