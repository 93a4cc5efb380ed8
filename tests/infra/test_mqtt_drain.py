"""`mqtt-drain`: what waits for clients that are to go reaches the log, and the broker keeps nothing for them."""

import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from connectors import kafka_client, kafka_topics
from connectors.kafka_sink import Publisher
from connectors.mqtt import MqttSource
from connectors.mqtt_connection import Connection
from dataflows.decoding.ticks import tick_records
from dataflows.decoding.topics import compile_topic
from infra.mqtt_drain import main, refuse_while_running
from schemas.arrivals import Tick
from schemas.errors import OperatorError
from schemas.settings import KafkaSettings, MqttSettings, OutputSettings, Settings
from schemas.telemetry_pb2 import Telemetry
from tests.connectors.mqtt_devices import Sent, publish

pytestmark = [pytest.mark.embedded, pytest.mark.contract, pytest.mark.long]

CLIENTS = 3
DEADLINE_SECS = 60.0


@pytest.fixture
def settings(kafka_bootstrap: str, mqtt_url: str) -> Iterator[Settings]:
    """Three clients whose sessions exist, and nobody there."""
    name = uuid.uuid4().hex[:12]
    kafka = KafkaSettings(
        bootstrap_servers=kafka_bootstrap,
        partitions=2,
        events_topic=f"raw.events.{name}",
        dead_letter_topic=f"raw.dead_letter.{name}",
    )
    mqtt = MqttSettings(
        url=mqtt_url,
        client_id=f"ingest-{name}",
        clients=CLIENTS,
        share_name=name,
        topic=f"{name}/{{device_id}}/telemetry",
        tick_secs=0.1,
    )
    settings = Settings(kafka=kafka, mqtt=mqtt, output=OutputSettings(topic=f"aggregates.{name}"))
    kafka_topics.ensure(settings)
    source = MqttSource(mqtt, compile_topic(mqtt.topic).filter)
    for worker in source.list_parts():
        source.build_part("mqtt", worker, None).close()
    yield settings
    admin = kafka_client.admin(kafka)
    topics = [kafka.events_topic, kafka.dead_letter_topic, settings.output.topic]
    for answer in admin.delete_topics(topics).values():
        answer.result(DEADLINE_SECS)


@pytest.fixture
def path(settings: Settings, tmp_path: Path) -> Path:
    written = tmp_path / "settings.yaml"
    plain = settings.to_builtins()
    written.write_text(json.dumps({section: plain[section] for section in ("mqtt", "kafka", "output")}))
    return written


def send(settings: Settings, numbers: Sequence[int]) -> None:
    now = time.time_ns() // 1_000_000
    topic = settings.mqtt.topic.replace("{device_id}", "d{}")
    publish(
        settings.mqtt.url,
        [Sent(topic.format(n % 5), json.dumps({"ts": now + n, "metrics": {"n": n}}).encode()) for n in numbers],
    )


def appended(settings: Settings) -> list[float]:
    """The numbers in the log, sorted."""
    consumer: Consumer = kafka_client.consumer(settings.kafka, "test")
    topic, found = settings.kafka.events_topic, []
    ends = [kafka_client.bounds(consumer, topic, p)[1] for p in range(2)]
    consumer.assign([TopicPartition(topic, p, 0) for p in range(2)])
    while len(found) < sum(ends):
        found += [message for message in consumer.consume(1_000, 0.1) if message.error() is None]
    consumer.close()
    return sorted(Telemetry.FromString(message.value() or b"").metrics["n"] for message in found if message.key())


def left_to_the_first(settings: Settings) -> set[float]:
    """What the broker has for the first client, alone now: all that comes before its first tick."""
    mqtt = msgspec.structs.replace(settings.mqtt, clients=1)
    source = MqttSource(mqtt, compile_topic(mqtt.topic).filter)
    part = source.build_part("mqtt", mqtt.workers[0], None)
    found: list[float] = []
    ticked = False
    deadline = time.monotonic() + DEADLINE_SECS
    while -1 not in found:
        assert time.monotonic() < deadline, found
        for item in part.next_batch():
            found += [json.loads(each)["metrics"]["n"] for each in getattr(item, "payloads", ())]
            if isinstance(item, Tick) and not ticked:
                ticked = True
                send(settings, [-1])
        part.snapshot()  # the next batch acknowledges: without that there are no ticks
        time.sleep(0.005)
    part.close()
    waited = [number for number in found if number != -1]  # which comes by the session's shared subscription too
    assert len({*waited}) == len(waited)
    return {*waited}


def test_what_waits_for_the_clients_above_is_in_the_log_and_no_session_is_left(
    settings: Settings, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the client that stays has is left to it; together nothing is missing and nothing there twice."""
    send(settings, range(300))
    assert main(["--settings", str(path), "--clients", "1"]) == 0
    said = capsys.readouterr().out
    drained = appended(settings)
    assert len({*drained}) == len(drained)
    left = left_to_the_first(settings)
    assert {*drained} | left == {*range(300)}
    assert not {*drained} & left
    assert f"{settings.mqtt.workers[2]:<24}" in said
    assert said.count("session ended") == 2
    assert main(["--settings", str(path), "--clients", "1"]) == 0
    assert capsys.readouterr().out.count("no session") == 2


def test_a_client_at_work_is_not_taken_over(settings: Settings) -> None:
    """Its ticks in the log tell; it is not even connected to."""
    publisher = Publisher(settings.kafka)
    busy, idle = settings.mqtt.workers[1:]
    refuse_while_running(settings, [idle, busy])

    def tick() -> None:
        publisher.send_all([*tick_records(Tick(busy, time.time_ns() // 1_000_000), settings.kafka.events_topic, 2)])
        publisher.flush()

    over = threading.Event()

    def at_work() -> None:
        while not over.wait(0.1):
            tick()

    thread = threading.Thread(target=at_work)
    thread.start()
    try:
        with pytest.raises(OperatorError, match=f"{busy} is at work"):
            refuse_while_running(settings, [busy])
        refuse_while_running(settings, [idle])
    finally:
        over.set()
        thread.join()


def test_a_session_that_is_taken_back_stops_the_drain(
    settings: Settings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ingest that was silent comes back for it: nothing is ended, and what was not acknowledged stays."""
    send(settings, range(50))
    forget = Connection.forget

    def overtaken(connection: Connection, topic_filter: str) -> object:
        source = MqttSource(settings.mqtt, compile_topic(settings.mqtt.topic).filter)
        source.build_part("mqtt", settings.mqtt.workers[1], None).close()
        return forget(connection, topic_filter)

    monkeypatch.setattr("connectors.mqtt_drain.Connection.forget", overtaken)
    with pytest.raises(OperatorError, match="stop it"):
        main(["--settings", str(path), "--clients", "1"])
    monkeypatch.undo()
    assert main(["--settings", str(path), "--clients", "1"]) == 0
    assert {*appended(settings)} | left_to_the_first(settings) == {*range(50)}
