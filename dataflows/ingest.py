"""The ingest dataflow: what devices publish over MQTT, decoded, into the log.

    MQTT ─(Arrivals, Tick)─▶ decode ─(Record…)─▶ Kafka: raw.events, raw.dead_letter

Guarantee: a message is acknowledged to the MQTT broker only after its records are on all in-sync replicas. Where it
comes again although they are, it is acknowledged and not appended twice. Ticks follow the messages they speak of, in
every partition.

Run it: python -m bytewax.run "dataflows.ingest:flow('infra/settings/prod.yaml')" -s 1
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from connectors import epochs, garbage, kafka_topics, metering, metrics_server
from connectors.kafka_sink import KafkaSink
from connectors.kafka_tail import tail_values
from connectors.mqtt import MqttSource
from connectors.share import take_share
from connectors.stopping import one_message
from dataflows.decoding.arrivals import ArrivalsDecoder
from dataflows.decoding.backlog import Backlog
from dataflows.decoding.ticks import tick_records
from dataflows.decoding.topics import compile_topic
from dataflows.redelivery import Appended, runs
from schemas.arrivals import Arrivals, Tick
from schemas.record import Record
from schemas.settings import Settings
from schemas.settings_file import load_settings

Written = tuple[str, Sequence[Record]]
READ_BACK_MAX: Final = 1_000_000  # records: a second or two. What is older and comes again is appended as a duplicate


@one_message
def flow(settings_path: str, share: str = "0/1") -> Dataflow:
    """The dataflow of ``settings_path``; ``share`` "i/n" takes MQTT clients c with c % n = i.

    A wrong setting or a missing topic ends the process with one message.
    """
    settings = load_settings(settings_path)
    garbage.collect_rarely()
    metrics_server.serve(settings.metrics, "ingest", share)
    epochs.last(settings.flow.epoch_interval_ms)
    kafka_topics.check(settings, settings.kafka.events_topic, settings.kafka.dead_letter_topic)
    topic = compile_topic(settings.mqtt.topic, settings.mqtt.device_id_template)
    workers = take_share(share, settings.mqtt.workers)
    source = MqttSource(settings.mqtt, topic.filter, workers)
    return build(source, KafkaSink(settings.kafka, workers), settings, read_back(settings))


def read_back(settings: Settings) -> Appended:
    """What the log was given last: all that the broker may send again is among it."""
    kafka = settings.kafka
    unacknowledged_max = settings.mqtt.clients * settings.mqtt.receive_max
    records_max = min(unacknowledged_max, READ_BACK_MAX // kafka.partitions)
    return Appended(unacknowledged_max, tail_values(kafka, kafka.events_topic, records_max))


def build(
    source: Source[Arrivals | Tick], sink: Sink[Written], settings: Settings, appended: Appended | None = None
) -> Dataflow:
    """The wiring. Source and sink have one part an ingest worker, so what one receives stays with one."""
    ingest = Dataflow("ingest")
    arrivals = op.input("mqtt", ingest, source)
    records = op.flat_map_batch("decode", arrivals, Decode(settings, appended or Appended(settings.mqtt.receive_max)))
    op.output("kafka", records, sink)
    return ingest


class Decode:
    """The step between source and sink: records of arrivals, and of ticks, one a partition, where nothing is behind."""

    def __init__(self, settings: Settings, appended: Appended) -> None:
        self._decoder = ArrivalsDecoder(settings.mqtt, settings.decoding, settings.kafka, settings.windows)
        self._kafka = settings.kafka
        self._appended = appended
        self._backlog = Backlog()

    def __call__(self, items: Iterable[Arrivals | Tick]) -> Iterator[Written]:
        for item in items:
            if isinstance(item, Tick):
                held_back = self._backlog.holds_back(item.worker)
                metering.ticked(item.worker, held_back=held_back)
                if held_back:
                    continue
                yield item.worker, [*tick_records(item, self._kafka.events_topic, self._kafka.partitions)]
            else:
                yield item.worker, [record for dup, part in runs(item) for record in self._fresh(part, dup)]

    def _fresh(self, arrivals: Arrivals, dup: bool) -> Sequence[Record]:
        """The records of ``arrivals``; of those that come again, what the log does not have."""
        # Stamped now, not at arrival: after an outage of Kafka each worker hands over what arrived meanwhile, one after
        # the other, and the times of the first would lead the log past the readings of the second.
        decoded = self._decoder.decode(arrivals, time.time_ns() // 1_000_000)
        self._backlog.heard(arrivals.worker, decoded.messages, decoded.old)
        records: Sequence[Record] = decoded.records
        events = self._kafka.events_topic
        if dup:
            records = [record for record in records if record.topic != events or record.value not in self._appended]
        self._appended.add(record.value for record in records if record.topic == events)
        again = len(decoded.records) - len(records)
        metering.ingested(arrivals.worker, messages=decoded.messages - again, untimed=decoded.untimed, again=again)
        metering.rejected("ingest", decoded.dead_letters.items())
        return records
