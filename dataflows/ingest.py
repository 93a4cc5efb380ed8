"""The ingest dataflow: what devices publish over MQTT, decoded, into the log.

    MQTT ─(Arrivals, Tick)─▶ decode ─(Record…)─▶ Kafka: raw.events, raw.dead_letter

Guarantee: a message is acknowledged to the MQTT broker only after its records are on all in-sync replicas. Ticks follow
the messages they speak of, in every partition.

Run it: python -m bytewax.run "dataflows.ingest:flow('infra/settings/prod.yaml')" -s 1
"""

from collections.abc import Iterable, Iterator, Sequence

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from connectors import epochs, kafka_topics
from connectors.kafka_sink import KafkaSink
from connectors.mqtt import MqttSource
from connectors.stopping import one_message
from dataflows.decoding.arrivals import ArrivalsDecoder
from dataflows.decoding.ticks import tick_records
from dataflows.decoding.topics import compile_topic
from schemas.arrivals import Arrivals, Tick
from schemas.record import Record
from schemas.settings import Settings
from schemas.settings_file import load_settings

Written = tuple[str, Sequence[Record]]


@one_message
def flow(settings_path: str) -> Dataflow:
    """The dataflow of ``settings_path``. A wrong setting or a missing topic ends the process with one message."""
    settings = load_settings(settings_path)
    epochs.last(settings.flow.epoch_interval_ms)
    kafka_topics.check(settings, settings.kafka.events_topic, settings.kafka.dead_letter_topic)
    topic = compile_topic(settings.mqtt.topic, settings.mqtt.device_id_template)
    source = MqttSource(settings.mqtt, topic.filter)
    return build(source, KafkaSink(settings.kafka, settings.mqtt.workers), settings)


def build(source: Source[Arrivals | Tick], sink: Sink[Written], settings: Settings) -> Dataflow:
    """The wiring. Source and sink have one part an ingest worker, so what one receives stays with one."""
    ingest = Dataflow("ingest")
    arrivals = op.input("mqtt", ingest, source)
    records = op.flat_map_batch("decode", arrivals, Decode(settings))
    op.output("kafka", records, sink)
    return ingest


class Decode:
    """The step between source and sink: records of arrivals, and of ticks one a partition."""

    def __init__(self, settings: Settings) -> None:
        self._decoder = ArrivalsDecoder(settings.mqtt, settings.decoding, settings.kafka, settings.windows)
        self._kafka = settings.kafka

    def __call__(self, items: Iterable[Arrivals | Tick]) -> Iterator[Written]:
        for item in items:
            if isinstance(item, Tick):
                yield item.worker, [*tick_records(item, self._kafka.events_topic, self._kafka.partitions)]
            else:
                yield item.worker, self._decoder.decode(item).records
