"""The dataflow ``minute_rollups``: raw.events → windows → rollups_1m, and aggregates.minute beside it.

    ResumingSource ─(Claim, LogBatch…)─▶ decode, window ─(partition, Claim | Outcome)…─▶ SealingSink

One partition of the log is the unit of state and stays on one worker from source to sink; nothing is exchanged
between workers. What the step knows it can rebuild from the claim and the log, so it has no state to save. A
five-minute rollup is this module with another settings file.

Run it: python -m bytewax.run "dataflows.minute_rollups:flow('infra/settings/prod.yaml')" -s 1
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from connectors import epochs, garbage, kafka_topics, metering, metrics_server
from connectors.kafka import KafkaLog
from connectors.kafka_sink import Publisher
from connectors.resuming import ResumingSource
from connectors.sealing import SealingSink
from connectors.stopping import one_message, speaking
from connectors.timescale import TimescaleStore
from connectors.timescale_late import Archive
from connectors.timescale_rollups import RollupWriter, check_tables
from dataflows.decoding.dead_letter import dead_letter_from_log
from dataflows.decoding.log import decode_log
from dataflows.windowing import Windows
from schemas.log import LogBatch, Outcome, Refused
from schemas.progress import Claim
from schemas.record import Record
from schemas.settings import Settings
from schemas.settings_file import load_settings

Sealing = tuple[str, Claim | Outcome]


@one_message
def flow(settings_path: str, share: str = "0/1") -> Dataflow:
    """The dataflow of ``settings_path``; ``share`` "i/n" takes partitions p with p % n = i.

    A wrong setting, a missing topic or table ends the process with one message.
    """
    settings = load_settings(settings_path)
    garbage.collect_rarely()
    metrics_server.serve(settings.metrics, settings.flow.name, share)
    epochs.last(settings.flow.epoch_interval_ms)
    kafka, output = settings.kafka, settings.output
    kafka_topics.check(settings, kafka.events_topic, kafka.dead_letter_topic, output.topic)
    check_tables(settings.database.conninfo, output.table)
    store = TimescaleStore(
        settings.database, settings.flow.name, output.table, f"windows of {settings.windows.length_secs} s"
    )
    log = KafkaLog(kafka, kafka.events_topic, settings.flow.name)
    source = ResumingSource(log, store, settings.flow.start, share, [settings.flow.progress_every_secs])
    every_secs = settings.flow.progress_every_secs
    sink = SealingSink(store, source.list_parts, rollup_writer(settings), every_secs, told=meter, check=source.check)
    return build(source, sink, settings)


def build(source: Source[Claim | LogBatch], sink: Sink[Sealing], settings: Settings) -> Dataflow:
    """The wiring. Source and sink have one part a partition, of the same names, so that it stays on one worker."""
    rollups = Dataflow(settings.flow.name)
    records = op.input("raw_events", rollups, source)
    outcomes = op.flat_map_batch("windows", records, Roll(settings))
    op.output("seal", outcomes, sink)
    return rollups


class Roll:
    """The step between source and sink: decodes each batch and feeds it to its partition's windows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._windows: dict[int, Windows] = {}
        self._meters: dict[int, metering.WindowMeter] = {}

    @speaking
    def __call__(self, items: Iterable[Claim | LogBatch]) -> Iterator[Sealing]:
        for item in items:
            if isinstance(item, Claim):
                workers = self._settings.mqtt.workers
                self._windows[item.partition] = Windows(self._settings.windows, item, workers)
                self._meters[item.partition] = metering.WindowMeter(item)
                self._show(item.partition)
                yield str(item.partition), item
            else:
                outcome = self._windows[item.partition].feed(decode_log(item, self._settings.decoding))
                self._show(item.partition)
                yield str(item.partition), _with_payloads(outcome, item)

    def _show(self, partition: int) -> None:
        windows = self._windows[partition]
        self._meters[partition].now(windows.open_rows, windows.watermark)


def meter(claim: Claim, outcomes: Sequence[Outcome]) -> None:
    """Count what was committed, and is not in the ledger by name."""
    metering.rollups_committed(claim, sum(len(outcome.rollups) for outcome in outcomes))
    refused = Counter(one.reason for outcome in outcomes for one in outcome.refused)
    metering.rejected(claim.flow, refused.items())


def rollup_writer(settings: Settings) -> Callable[[Claim], RollupWriter]:
    """What the sink calls for each partition that it was given."""
    length_ms = settings.windows.length_secs * 1000
    archive = Archive(settings.archive.name, settings.archive.table) if settings.archive.tells_copies else None

    def dead_letter(claim: Claim, refused: Refused) -> Record:
        limit = settings.decoding.payload_bytes_max
        return dead_letter_from_log(settings.kafka.dead_letter_topic, refused, claim.topic, claim.partition, limit)

    def writer(claim: Claim) -> RollupWriter:
        publisher = Publisher(settings.kafka)
        return RollupWriter(
            claim, settings.output.table, settings.output.topic, length_ms, publisher, dead_letter, archive
        )

    return writer


def _with_payloads(outcome: Outcome, batch: LogBatch) -> Outcome:
    """The core refuses by time alone and never sees a payload: put it back where it is missing."""
    missing = {one.offset for one in outcome.refused if not one.payload}
    if not missing:
        return outcome
    payloads = {offset: value for offset, value in zip(batch.offsets, batch.values, strict=True) if offset in missing}
    return replace(
        outcome, refused=[replace(one, payload=one.payload or payloads[one.offset]) for one in outcome.refused]
    )
