"""The dataflow ``anomaly_flags``: aggregates.minute → watches → anomaly_flags, and anomalies and alerts beside it.

    ResumingSource ─(Claim, LogBatch…)─▶ decode, judge ─(partition, Claim | Judged)…─▶ SealingSink

One partition is the unit of state and stays on one worker from source to sink, as in ``minute_rollups``. The state is
written to the database every few minutes, in the transaction that seals; ``progress.resume`` is its offset.
After a restart the log from there on rebuilds the rest, and nothing of it is told again.

Run it: python -m bytewax.run "dataflows.anomaly_flags:flow('infra/settings/prod.yaml')" -s 1
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from connectors import epochs, garbage, kafka_topics, metering, metrics_server
from connectors.kafka import KafkaLog
from connectors.kafka_sink import Publisher
from connectors.mqtt_alerts import AlertSender
from connectors.resuming import ResumingSource
from connectors.sealing import SealingSink
from connectors.stopping import one_message, speaking
from connectors.timescale import TimescaleStore
from connectors.timescale_flags import FlagWriter, check_tables, recall
from dataflows.anomalies.flagging import Flags
from dataflows.anomalies.registry import DETECTORS
from dataflows.anomalies.rules import watches
from dataflows.anomalies.watch import Watch
from dataflows.decoding.dead_letter import dead_letter_from_log
from dataflows.decoding.rollup_log import decode_rollups
from schemas.flags import Episode, Judged, Snapshot
from schemas.log import LogBatch, Refused
from schemas.progress import Claim
from schemas.record import Record
from schemas.rules_file import load_rules
from schemas.settings import Settings
from schemas.settings_file import load_settings

Sealing = tuple[str, Claim | Judged]
Recall = Callable[[Claim], tuple[Snapshot | None, Mapping[str, Episode]]]

HOUR_MS: Final = 3_600_000


@one_message
def flow(settings_path: str, share: str = "0/1") -> Dataflow:
    """The dataflow of ``settings_path``; ``share`` "i/n" takes partitions p with p % n = i.

    A wrong setting or rule, a missing topic or table ends the process with one message.
    """
    settings = load_settings(settings_path)
    flags, topic = settings.flags, settings.output.topic
    rules = watches(load_rules(Path(settings_path).parent / flags.rules_file, DETECTORS).values())
    garbage.collect_rarely()
    metrics_server.serve(settings.metrics, flags.name, share)
    epochs.last(settings.flow.epoch_interval_ms)
    kafka_topics.check(settings, topic, flags.topic, settings.kafka.dead_letter_topic)
    check_tables(settings.database.conninfo, flags.table)
    shape = f"flags of windows of {settings.windows.length_secs} s"
    store = TimescaleStore(settings.database, flags.name, flags.table, shape)
    log = KafkaLog(settings.kafka, topic, flags.name)
    every_secs = settings.flow.progress_every_secs
    source = ResumingSource(log, store, flags.start, share, [every_secs])
    sink = SealingSink(store, source.list_parts, flag_writer(settings), every_secs, told=meter, check=source.check)
    return build(source, sink, settings, rules, lambda claim: recall(settings.database.conninfo, claim))


def build(
    source: Source[Claim | LogBatch], sink: Sink[Sealing], settings: Settings, rules: Sequence[Watch], recall: Recall
) -> Dataflow:
    """The wiring. Source and sink have one part a partition, of the same names, so that it stays on one worker."""
    flags = Dataflow(settings.flags.name)
    records = op.input("aggregates", flags, source)
    judged = op.flat_map_batch("watches", records, Flag(settings, rules, recall))
    op.output("seal", judged, sink)
    return flags


class Flag:
    """The step between source and sink: decodes each batch and feeds it to its partition's watches.

    When a snapshot is due is a matter of this machine's clock; it changes no answer.
    """

    def __init__(self, settings: Settings, rules: Sequence[Watch], recall: Recall) -> None:
        self._settings = settings
        self._rules = rules
        self._recall = recall
        self._length_ms = settings.windows.length_secs * 1000
        self._engines: dict[int, Flags] = {}
        self._meters: dict[int, metering.FlagMeter] = {}
        self._positions: dict[int, int] = {}
        self._due: dict[int, float] = {}

    @speaking
    def __call__(self, items: Iterable[Claim | LogBatch]) -> Iterator[Sealing]:
        for item in items:
            if isinstance(item, Claim):
                engine = self._engines[item.partition] = self._engine(item)
                self._meters[item.partition] = metering.FlagMeter(item)
                self._positions[item.partition] = item.progress.position
                self._due[item.partition] = time.monotonic() + self._settings.flags.snapshot_every_secs
                told: Claim | Judged = item
            else:
                engine = self._engines[item.partition]
                told = self._with_snapshot(engine, engine.feed(decode_rollups(item, self._length_ms)))
            self._meters[item.partition].now(engine.series)
            yield str(item.partition), told

    def _engine(self, claim: Claim) -> Flags:
        snapshot, told = self._recall(claim)
        flags = self._settings.flags
        forget_after_ms = flags.forget_after_hours * HOUR_MS
        return Flags(self._rules, self._length_ms, claim, snapshot, told, forget_after_ms, flags.series_max)

    def _with_snapshot(self, engine: Flags, judged: Judged) -> Judged:
        """With a snapshot, where one is due and the position moves: only then there is a commit to bring it."""
        partition, position = judged.partition, judged.progress.position
        moves = position > self._positions[partition]
        self._positions[partition] = position
        if not moves or time.monotonic() < self._due[partition]:
            return judged
        self._due[partition] = time.monotonic() + self._settings.flags.snapshot_every_secs
        return engine.with_snapshot(judged)


def meter(claim: Claim, judged: Sequence[Judged]) -> None:
    """Count what was committed, and is not in the ledger by name."""
    metering.rejected(claim.flow, Counter(one.reason for each in judged for one in each.refused).items())
    episodes: Counter[tuple[str, str]] = Counter(
        (one.phase, one.flag.severity) for each in judged for one in each.episodes
    )
    metering.flags_committed(claim, sum(len(each.flags) for each in judged), episodes)


def flag_writer(settings: Settings) -> Callable[[Claim], FlagWriter]:
    """What the sink calls for each partition that it was given."""
    flags = settings.flags

    def dead_letter(claim: Claim, refused: Refused) -> Record:
        limit = settings.decoding.payload_bytes_max
        return dead_letter_from_log(settings.kafka.dead_letter_topic, refused, claim.topic, claim.partition, limit)

    def writer(claim: Claim) -> FlagWriter:
        client_id = f"{flags.alert_client_id}-{claim.partition}"
        alerts = AlertSender(settings.mqtt, client_id) if flags.alerts else None
        length_ms = settings.windows.length_secs * 1000
        return FlagWriter(claim, flags, length_ms, Publisher(settings.kafka), alerts, dead_letter)

    return writer
