"""Records of the log to frames: what every dataflow does that reads raw.events.

Trusts nothing: others may write there. What a record becomes depends on that record alone, never on its neighbours, so
that the cutting of a log into batches changes no answer. Whether a time is believable is for the window core to judge.

Good batches stay columnar from end to end: records that are alike are read as a matrix, others decoded to Arrow in Rust
(ptars), and the rules are checked on whole columns. Only records that may break one are looked at one by one, with
Google's parser: some 100 k/s instead of millions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dataflows.decoding.alike import read_alike
from dataflows.decoding.columns import ROWS_MAX, Columns, out_of_bounds, parse_all, suspicious, unlawful
from dataflows.decoding.metrics import sift
from dataflows.decoding.names import Names, flaw_in
from dataflows.decoding.protobuf_payload import read_telemetry
from dataflows.decoding.reasons import Flaw, Reason, shown
from dataflows.decoding.said import Said
from dataflows.decoding.ticks import ticking_worker
from dataflows.decoding.times import TIME_MAX_MS, TIME_MIN_MS
from schemas.frames import MESSAGES, TICKS
from schemas.log import LogBatch, LogSlice, Refused
from schemas.packed import Packed
from schemas.settings import DecodingSettings


def decode_log(batch: LogBatch, settings: DecodingSettings) -> LogSlice:
    """Each record of ``batch`` as a message, a tick or a refusal, by offset. Never raises for what a record holds."""
    assert len(batch.values) <= ROWS_MAX, "a source hands out smaller batches"
    ones = _OneByOne(settings.metrics_max)
    frames = [frame for frame in _columnar(batch, ones) if len(frame)]
    if ones.messages:
        frames.append(pl.DataFrame(ones.messages, schema=MESSAGES, orient="row"))
    messages = frames[0] if frames else MESSAGES.to_frame()
    if len(frames) > 1:
        messages = pl.concat(frames, rechunk=True).sort("offset")
    ticks = pl.DataFrame(ones.ticks, schema=TICKS, orient="row")
    return LogSlice(batch.partition, batch.start, batch.end, messages, ticks, ones.refused, batch.anchor)


def _columnar(batch: LogBatch, ones: "_OneByOne") -> Iterator[pl.DataFrame]:
    """The messages that are beyond suspicion; the other records are given to ``ones``."""
    if not batch.values:
        return
    alike = read_alike(Packed.of(batch.values))
    if alike is None:
        yield _parsed(batch, ones)
        return
    columns, flags = alike
    flags |= out_of_bounds(columns, ones.metrics_max)
    flags[list(batch.headers)] = True
    messages = _frame(batch, columns)
    if not flags.any():
        yield messages
        return
    yield messages.filter(pl.Series(~flags))
    yield _parsed(_chosen(batch, np.flatnonzero(flags).tolist()), ones)


def _chosen(batch: LogBatch, rows: Sequence[int]) -> LogBatch:
    """These rows of the batch, which go the long way as they would alone."""
    return replace(
        batch,
        offsets=[batch.offsets[row] for row in rows],
        append_times=[batch.append_times[row] for row in rows],
        values=[batch.values[row] for row in rows],
        headers={at: batch.headers[row] for at, row in enumerate(rows) if row in batch.headers},
    )


def _parsed(batch: LogBatch, ones: "_OneByOne") -> pl.DataFrame:
    """The messages that ptars reads and that break no rule; the other records are given to ``ones``."""
    values = list(batch.values)
    sizes = list(map(len, values))
    columns = parse_all(values, sizes)
    flags = suspicious(columns, sizes, ones.metrics_max)
    flags[unlawful(columns.device_id)] = True
    workers = {row: worker for row, headers in batch.headers.items() if (worker := ticking_worker(headers)) is not None}
    flags[list(workers)] = True
    messages = _frame(batch, columns)
    if not flags.any():
        return messages
    for row in np.flatnonzero(flags).tolist():
        ones.judge(batch, row, workers.get(row))
    return messages.filter(pl.Series(~flags))


def _frame(batch: LogBatch, columns: Columns) -> pl.DataFrame:
    starts = pa.array(columns.starts)
    return pl.DataFrame(
        {
            "offset": pl.Series(batch.offsets, dtype=pl.Int64),
            "append_time": pl.Series(batch.append_times, dtype=pl.Int64),
            "event_time": columns.ts,
            "device_id": pl.from_arrow(columns.device_id),
            "metric": pl.from_arrow(pa.ListArray.from_arrays(starts, columns.metric)),
            "value": pl.from_arrow(pa.ListArray.from_arrays(starts, pa.array(columns.value))),
        },
        schema=MESSAGES,
    )


@dataclass(slots=True)
class _OneByOne:
    """Judges records singly, and keeps what became of each."""

    metrics_max: int
    messages: list[tuple[Any, ...]] = field(default_factory=list)  # rows of MESSAGES
    ticks: list[tuple[int, int, str, int]] = field(default_factory=list)  # rows of TICKS
    refused: list[Refused] = field(default_factory=list)
    names: Names = field(default_factory=Names)

    def judge(self, batch: LogBatch, row: int, worker: str | None) -> None:
        """Record ``row`` of the batch: a tick of ``worker`` or, where that is None, a message."""
        offset, append_time, value = batch.offsets[row], batch.append_times[row], batch.values[row]
        said = read_telemetry(value)
        good = False
        if isinstance(said, Flaw):
            flaw: Flaw | None = said
        elif worker is not None:
            flaw = _flaw_in_tick(said, worker)
            if flaw is None:
                self.ticks.append((offset, append_time, worker, said.ts))
        elif (flaw := self._flaw_in_message(said)) is None:
            metrics, flaw = sift(said.metrics, self.names, self.metrics_max)
            if good := bool(metrics):
                names, values = list(metrics), list(metrics.values())
                self.messages.append((offset, append_time, said.ts or 0, said.device_id, names, values))
        if flaw is not None:
            self.refused.append(Refused(offset, append_time, flaw.reason, flaw.detail, value, whole=not good))

    def _flaw_in_message(self, said: Said) -> Flaw | None:
        if said.device_id is None and said.ts is None and not said.metrics:
            return Flaw(Reason.NO_METRICS, "an empty record")
        if words := self.names.flaw_in(said.device_id or ""):
            return Flaw(Reason.BAD_NAME, f"device id {shown(said.device_id or '')} {words}")
        return _flaw_in_time(said.ts or 0)


def _flaw_in_tick(said: Said, worker: str) -> Flaw | None:
    if words := flaw_in(worker):
        return Flaw(Reason.BAD_NAME, f"the ingest worker of a tick, {shown(worker)}, {words}")
    if said.ts is None or said.metrics:
        return Flaw(Reason.BAD_SHAPE, "a tick has a time and no metrics")
    return _flaw_in_time(said.ts)


def _flaw_in_time(ts: int) -> Flaw | None:
    """Whether differences to ``ts`` are safe, and it can be written as a date. No more is asked here."""
    if TIME_MIN_MS <= ts <= TIME_MAX_MS:
        return None
    return Flaw(Reason.BAD_TIMESTAMP, f"ts is {ts}, outside the years 1 to 9999")
