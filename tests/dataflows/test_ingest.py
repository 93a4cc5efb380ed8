"""The ingest dataflow, between a real MQTT broker and a real Kafka."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from bytewax.errors import BytewaxRuntimeError
from bytewax.testing import run_main
from confluent_kafka import Consumer, Message, TopicPartition

from connectors import kafka_client, kafka_topics, stopping
from connectors.kafka_sink import KafkaSink
from connectors.mqtt import MqttSource
from dataflows import ingest
from dataflows.decoding.topics import compile_topic
from schemas.errors import ServerAway
from schemas.settings import KafkaSettings, MqttSettings, OutputSettings, Settings
from schemas.telemetry_pb2 import Telemetry
from tests.conftest import free_port
from tests.connectors.mqtt_devices import Sent, publish
from tests.connectors.mqtt_wire import Wire

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

ROOT = Path(__file__).parents[2]
DEADLINE_SECS = 90.0
RunWhile = Callable[..., None]
EPOCH = timedelta(milliseconds=50)


@pytest.fixture
def settings(kafka_bootstrap: str, mqtt_url: str) -> Iterator[Settings]:
    """Settings with topics and a client id of their own; the topics exist."""
    name = uuid.uuid4().hex[:12]
    kafka = KafkaSettings(
        bootstrap_servers=kafka_bootstrap,
        partitions=3,
        events_topic=f"raw.events.{name}",
        dead_letter_topic=f"raw.dead_letter.{name}",
    )
    mqtt = MqttSettings(
        url=mqtt_url, client_id=f"ingest-{name}", topic=f"{name}/{{device_id}}/telemetry", tick_secs=0.1
    )
    output = OutputSettings(topic=f"aggregates.{name}")
    settings = Settings(kafka=kafka, mqtt=mqtt, output=output)
    kafka_topics.ensure(settings)
    yield settings
    topics = [kafka.events_topic, kafka.dead_letter_topic, output.topic]
    admin = kafka_client.admin(kafka)
    for answer in admin.delete_topics(topics).values():
        answer.result(DEADLINE_SECS)


@pytest.fixture
def running(settings: Settings) -> Iterator[RunWhile]:
    """Run ingest in this process while a function runs beside it; a failure of either is the test's."""

    def run_while(beside: Callable[[], object], url: str | None = None) -> None:
        failures: list[BaseException] = []

        def then_stop() -> None:
            try:
                beside()
            except BaseException as error:
                failures.append(error)
            finally:
                stopping.request()

        stopping.forget()
        thread = threading.Thread(target=then_stop)
        thread.start()
        topic = compile_topic(settings.mqtt.topic)
        mqtt = msgspec.structs.replace(settings.mqtt, url=url or settings.mqtt.url)
        source = MqttSource(mqtt, topic.filter)
        sink = KafkaSink(settings.kafka, settings.mqtt.workers)
        run_main(ingest.build(source, sink, settings, ingest.read_back(settings)), epoch_interval=EPOCH)
        thread.join(DEADLINE_SECS)
        if failures:
            raise failures[0]

    yield run_while
    stopping.forget()


def read_topic(settings: Settings, topic: str, done: Callable[[list[Message]], bool]) -> list[Message]:
    """Records of ``topic`` from its beginning, until ``done`` says so."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": "test",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    partitions = 1 if topic == settings.kafka.dead_letter_topic else settings.kafka.partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    found: list[Message] = []
    deadline = time.monotonic() + DEADLINE_SECS
    while not done(found):
        assert time.monotonic() < deadline, f"{len(found)} records of {topic} and not done"
        # A topic made a moment ago may be unknown to a new client for a while, which it says by a message.
        found += [message for message in consumer.consume(1_000, 0.1) if message.error() is None]
    consumer.close()
    return found


def headers(message: Message) -> dict[str, bytes]:
    return dict(message.headers() or [])


def is_tick(message: Message) -> bool:
    return "tick" in headers(message)


def topic_of(settings: Settings, device: str) -> str:
    return settings.mqtt.topic.replace("{device_id}", device)


def test_each_message_becomes_a_record_or_a_dead_letter(settings: Settings, running: RunWhile) -> None:
    """Good payloads reach raw.events keyed by device, refused ones the dead letter with their bytes."""
    now = time.time_ns() // 1_000_000
    good = [
        Sent(topic_of(settings, f"d{i % 5}"), json.dumps({"ts": now + i, "metrics": {"n": i}}).encode())
        for i in range(500)
    ]
    broken = [Sent(topic_of(settings, "d0"), b"{broken %d" % i) for i in range(20)]

    def beside() -> None:
        events_of(settings, 0)  # a tick: ingest is subscribed
        publish(settings.mqtt.url, good + broken)
        events_of(settings, 500)
        letters()

    def letters() -> list[Message]:
        return read_topic(settings, settings.kafka.dead_letter_topic, lambda found: len(found) >= 20)

    def events_of(settings: Settings, count: int) -> list[Message]:
        def done(found: list[Message]) -> bool:
            return len([m for m in found if not is_tick(m)]) >= count and any(map(is_tick, found))

        return read_topic(settings, settings.kafka.events_topic, done)

    running(beside)
    events = [m for m in events_of(settings, 500) if not is_tick(m)]
    told = {(m.key().decode(), Telemetry.FromString(m.value()).metrics["n"]) for m in events}
    assert told == {(f"d{i % 5}", i) for i in range(500)}
    assert len(events) == 500
    assert {headers(m)["ingest-node-id"].decode() for m in events} == set(settings.mqtt.workers)
    found = letters()  # not in their order: Artemis now and then passes a topic's messages on in another one
    assert sorted(m.value() for m in found) == sorted(sent.payload for sent in broken)
    assert {headers(m)["reason"] for m in found} == {b"not_json"}


def test_ticks_reach_every_partition_behind_the_messages_they_speak_of(settings: Settings, running: RunWhile) -> None:
    """In each partition, what was ingested before a tick's time stands before it, and ticks go forward."""

    def beside() -> None:
        read_topic(settings, settings.kafka.events_topic, lambda found: any(map(is_tick, found)))
        for n in range(10):
            publish(settings.mqtt.url, [Sent(topic_of(settings, f"d{i}"), b'{"metrics": {"n": 1}}') for i in range(20)])
            read_topic(settings, settings.kafka.events_topic, lambda found: len(ticks_after(found, n)) >= 3)  # noqa: B023

    def ticks_after(found: list[Message], rounds: int) -> set[int]:
        """Partitions with a tick behind the last of ``rounds`` rounds of messages."""
        newest = max((m.timestamp()[1] for m in found if not is_tick(m)), default=0)
        enough = len(found) - sum(map(is_tick, found)) >= 20 * (rounds + 1)
        return {m.partition() for m in found if is_tick(m) and m.timestamp()[1] > newest} if enough else set()

    running(beside)
    found = read_topic(settings, settings.kafka.events_topic, lambda found: len(ticks_after(found, 9)) == 3)
    for partition in range(3):
        ticked = 0
        for message in (m for m in found if m.partition() == partition):
            time_ms = message.timestamp()[1]
            if is_tick(message):
                assert message.key() is None
                assert Telemetry.FromString(message.value()).ts == time_ms
                assert time_ms > ticked
                ticked = time_ms
            else:
                assert time_ms >= ticked
        assert ticked


def test_what_comes_again_is_not_appended_again(settings: Settings, running: RunWhile) -> None:
    """Acknowledgements that never reached the broker: it sends all of it again, and the log has each message once.

    Fewer messages than any broker's window, since a broker that hears nothing sends no more.
    """
    topic = settings.kafka.events_topic
    now = time.time_ns() // 1_000_000
    sent = [
        Sent(topic_of(settings, f"d{i % 5}"), json.dumps({"ts": now + i, "metrics": {"n": i}}).encode())
        for i in range(80)
    ]

    def events(at_least: int) -> list[float]:
        found = read_topic(settings, topic, lambda found: len(found) - sum(map(is_tick, found)) >= at_least)
        return [Telemetry.FromString(m.value()).metrics["n"] for m in found if not is_tick(m)]

    def unheard() -> None:
        read_topic(settings, topic, lambda found: any(map(is_tick, found)))
        wire.mute = True
        publish(settings.mqtt.url, sent)
        events(80)

    def heard() -> None:
        publish(settings.mqtt.url, [Sent(topic_of(settings, "d0"), b'{"ts": %d, "metrics": {"n": -1}}' % now)])
        events(81)

    with Wire(settings.mqtt.url) as wire, pytest.raises(BytewaxRuntimeError) as ended:
        running(unheard, wire.url)
    assert isinstance(ended.value.__cause__, ServerAway)  # nobody has read its acknowledgements, and it says so
    running(heard)
    assert sorted(events(81)) == [-1, *range(80)]


@pytest.mark.parametrize(
    ("change", "said", "status"),
    [
        ({"mqtt": {"url": "mqtt://127.0.0.1:{port}", "password": "hunter2", "username": "u"}}, "cannot connect", 69),
        ({"mqtt": {"topic": "devices/{{device_id"}}, "mqtt.topic", 78),
        ({"kafka": {"events_topic": "no.such.topic"}}, "./justw topics", 78),
        ({"kafka": {"partitions": 7}}, "kafka.partitions", 78),
    ],
    ids=["broker away", "bad template", "no topic", "other partitions"],
)
def test_a_start_that_cannot_succeed_is_one_message(
    settings: Settings, tmp_path: Path, change: dict[str, dict[str, object]], said: str, status: int
) -> None:
    """The process ends with it, and with a status that says whether somebody has to act; no traceback, no secret."""
    plain = settings.to_builtins()
    for section, values in change.items():
        plain[section] |= {
            key: value.format(port=free_port()) if isinstance(value, str) else value for key, value in values.items()
        }
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps({section: plain[section] for section in ("mqtt", "kafka")}))
    command = [sys.executable, "-m", "bytewax.run", f"dataflows.ingest:flow('{path}')", "-s", "1"]
    without = ("MQTT_URL", "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
    environment = {name: value for name, value in os.environ.items() if name not in without}
    ended = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == status
    lines = [line for line in ended.stderr.splitlines() if line.startswith("ionwax: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr + ended.stdout
