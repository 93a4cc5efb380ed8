"""`./justw mqtt-drain --clients N`: before mqtt.clients is lowered to N, empty the sessions of the clients above it.

The broker keeps a session, and messages in it, for each of them; without a client nobody would ever fetch those. They
go into the log as ingest would put them there, are acknowledged then, and the sessions are ended. Stop ingest first.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from confluent_kafka import OFFSET_END, TopicPartition

from connectors import kafka_client, kafka_topics, mqtt_address
from connectors.kafka_sink import Publisher
from connectors.mqtt_connection import Refused
from connectors.mqtt_drain import Drained, SessionDrain
from connectors.mqtt_wire import TappedLoop
from dataflows.decoding.topics import compile_topic
from dataflows.ingest import Decode, read_back
from infra.settings_option import add_settings_option, chosen_settings
from schemas.arrivals import Arrivals
from schemas.errors import OperatorError
from schemas.settings import Settings

LISTEN_TICKS: Final = 4  # how long an ingest that runs may be silent, in ticks, and at least
LISTEN_SECS_MIN: Final = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw mqtt-drain", description=__doc__)
    add_settings_option(parser)
    parser.add_argument("--clients", type=int, required=True, metavar="N", help="what mqtt.clients is to be")
    parser.add_argument(
        "--from", type=int, dest="before", metavar="M", help="what it was (default: what the settings say)"
    )
    chosen = parser.parse_args(arguments)
    settings = chosen_settings(chosen, "MQTT_URL", "KAFKA_BOOTSTRAP_SERVERS")
    before = chosen.before or settings.mqtt.clients
    if not 1 <= chosen.clients < before:
        raise OperatorError(
            f"there is nothing between --clients {chosen.clients} and mqtt.clients {before}: give the lower number "
            "that is to be, and with --from the number that was where the settings have it no more."
        )
    mqtt = msgspec.structs.replace(settings.mqtt, clients=before)
    settings = msgspec.structs.replace(settings, mqtt=mqtt)
    workers = mqtt.workers[chosen.clients :]
    kafka_topics.check(settings, settings.kafka.events_topic, settings.kafka.dead_letter_topic)
    refuse_while_running(settings, workers)
    for drained in drain(settings, workers):
        said = f"{drained.messages} messages appended and acknowledged; session ended"
        print(f"{drained.worker:<24} {said if drained.present else 'no session'}", flush=True)
    print(f"Now set mqtt.clients: {chosen.clients}, and start ingest and minute_rollups with it.")
    return 0


def drain(settings: Settings, workers: Sequence[str]) -> Iterator[Drained]:
    """Empty and end the sessions of ``workers``, one after the other."""
    address = mqtt_address.read_address(settings.mqtt.url)
    mqtt_address.check_credentials(settings.mqtt)
    context = mqtt_address.tls_context(settings.mqtt, address)
    topic = compile_topic(settings.mqtt.topic, settings.mqtt.device_id_template)
    decode, publisher = Decode(settings, read_back(settings)), Publisher(settings.kafka)

    def write(arrivals: Sequence[Arrivals]) -> None:
        for _, records in decode(arrivals):
            publisher.send_all(records)
        publisher.flush()

    async def one(worker: str) -> Drained:
        shared = f"$share/{settings.mqtt.share_name}/{topic.filter}"
        return await SessionDrain(settings.mqtt, worker, address, write).run(context, shared)

    for worker in workers:
        try:
            with asyncio.Runner(loop_factory=TappedLoop) as runner:
                yield runner.run(one(worker))
        except Refused as refused:
            raise refused.error from None


def refuse_while_running(settings: Settings, workers: Sequence[str]) -> None:
    """Raise ``OperatorError`` if one of ``workers`` appends to the log: ticks tell, also where no device speaks."""
    topic = settings.kafka.events_topic
    consumer = kafka_client.consumer(settings.kafka, "ionwax-drain")
    names = {worker.encode() for worker in workers}
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_END) for p in range(settings.kafka.partitions)])
        until = time.monotonic() + max(LISTEN_SECS_MIN, LISTEN_TICKS * settings.mqtt.tick_secs)
        while time.monotonic() < until:
            for message in consumer.consume(1_000, 0.1):
                worker = dict(message.headers() or []).get("ingest-node-id", b"")
                if message.error() is None and worker in names:
                    raise OperatorError(
                        f"{worker.decode()} is at work: it has just appended to {topic}. Stop ingest, or run it "
                        "without the clients that are to be drained, then drain again."
                    )
    finally:
        consumer.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"mqtt-drain: {error}")
