"""The dataflow ``raw_archive``: raw.events → raw_telemetry, every reading as it came.

    ResumingSource ─(Claim, LogBatch…)─▶ decode ─(partition, Claim | Landing)…─▶ SealingSink

It shares source, sink and checkpoint with ``minute_rollups``, and adds a step without state and a writer: its
``resume`` is always its ``position``. It takes what ``minute_rollups`` takes, by the same decoder and limits of time.
What that one refuses is counted as refused here and written nowhere: it stands in the dead letter already.

Where it runs, ``minute_rollups`` tells late copies of readings that were on time apart (``archive.tells_copies``).

Run it: python -m bytewax.run "dataflows.raw_archive:flow('infra/settings/prod.yaml')" -s 1
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import polars as pl
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from connectors import epochs, garbage, kafka_topics, metrics_server
from connectors.kafka import KafkaLog
from connectors.resuming import ResumingSource
from connectors.sealing import Pace, SealingSink
from connectors.stopping import one_message, speaking
from connectors.timescale import TimescaleStore
from connectors.timescale_raw import RawWriter, check_raw_table
from dataflows.decoding.log import decode_log
from dataflows.windowing.judged import Judged
from dataflows.windowing.limits import Limits
from dataflows.windowing.spans import Spans
from schemas.frames import READINGS
from schemas.log import Landing, LogBatch
from schemas.progress import Claim, Counts, Progress
from schemas.settings import Settings
from schemas.settings_file import load_settings

Sealing = tuple[str, Claim | Landing]

NO_READINGS: Final = READINGS.to_frame()
EPOCHS_A_WAIT: Final = 4  # a reading that comes after a pause waits for the end of an epoch


@one_message
def flow(settings_path: str, share: str = "0/1") -> Dataflow:
    """The dataflow of ``settings_path``; ``share`` "i/n" takes partitions p with p % n = i."""
    settings = load_settings(settings_path)
    garbage.collect_rarely()
    archive, topic = settings.archive, settings.kafka.events_topic
    metrics_server.serve(settings.metrics, archive.name, share)
    epochs.last(max(archive.batch_wait_ms // EPOCHS_A_WAIT, 1))
    kafka_topics.check(settings, topic)
    check_raw_table(settings.database.conninfo, archive.name, archive.table, topic)
    store = TimescaleStore(settings.database, archive.name, archive.table, "every reading")
    log = KafkaLog(settings.kafka, topic, archive.name)
    pace = Pace(archive.batch_rows, archive.batch_wait_ms / 1000)
    every_secs = settings.flow.progress_every_secs
    source = ResumingSource(log, store, settings.flow.start, share, [pace.wait_secs, every_secs])
    sink = SealingSink(
        store, source.list_parts, lambda claim: RawWriter(claim, archive.table), every_secs, pace, check=source.check
    )
    return build(source, sink, settings)


def build(source: Source[Claim | LogBatch], sink: Sink[Sealing], settings: Settings) -> Dataflow:
    """The wiring. Source and sink have one part a partition, of the same names, so that it stays on one worker."""
    archive = Dataflow(settings.archive.name)
    records = op.input("raw_events", archive, source)
    landings = op.flat_map_batch("decode", records, Land(settings))
    op.output("seal", landings, sink)
    return archive


class Land:
    """The step between source and sink: the readings of each batch, and what became of its records."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spans = Spans.of(settings.windows)
        self._progress: dict[int, Progress] = {}
        self._limits: dict[int, Limits] = {}

    @speaking
    def __call__(self, items: Iterable[Claim | LogBatch]) -> Iterator[Sealing]:
        for item in items:
            if isinstance(item, Claim):
                progress = self._progress[item.partition] = item.progress
                self._limits[item.partition] = Limits(progress.judged, progress.position, self._spans)
                yield str(item.partition), item
            else:
                yield str(item.partition), self._landing(item)

    def _landing(self, batch: LogBatch) -> Landing:
        limits = self._limits[batch.partition]
        readings, counts = self._readings(batch, limits)
        before = self._progress[batch.partition]
        progress = self._progress[batch.partition] = replace(
            before,
            position=batch.end,
            resume=batch.end,
            judged=limits.since(batch.end),
            anchor=batch.anchor or before.anchor,
        )
        return Landing(
            batch.partition, readings, replace(counts, gaps=batch.end - batch.start - counts.offsets), progress
        )

    def _readings(self, batch: LogBatch, limits: Limits) -> tuple[pl.DataFrame, Counts]:
        """The readings of a batch, and what its records were; gaps are not counted yet."""
        if not batch.values:
            return NO_READINGS, Counts()
        part = decode_log(batch, self._settings.decoding)
        judged = Judged.by(limits, self._spans, part.messages)
        accepted = part.messages.filter(pl.Series(judged.accepted))
        counts = Counts(
            messages=len(accepted),
            ticks=len(part.ticks),
            refused=sum(one.whole for one in judged.refusals(part.refused)),
            readings=judged.readings,
            counted=judged.readings,
        )
        if not len(accepted):
            return NO_READINGS, counts
        return accepted.explode("metric", "value", empty_as_null=False).select(READINGS.names()), counts
