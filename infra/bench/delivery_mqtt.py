"""MQTT QoS 1 into Kafka, acknowledged when durable: ``ingest`` as it runs in production, beside receivers that drop.

Rule: the same messages to all of them, from a server that costs little (``mqtt_replay``) or from Mosquitto, which has
them queued for the client's session. Ours counts only if Kafka has each message, and the server each acknowledgement.
"""

import os
import random
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from confluent_kafka import Consumer, KafkaException, TopicPartition

from connectors import kafka_topics
from infra.bench.mqtt_replay import Message, Replay
from infra.embedded.mosquitto import Mosquitto
from infra.fleet import mqtt5
from schemas.settings_file import OVERRIDES, load
from schemas.telemetry_pb2 import Telemetry

ROOT: Final = Path(__file__).parents[2]
TICKS_A_SEC: Final = os.sysconf("SC_CLK_TCK")
RUN_SECS_MAX: Final = 120.0
DEVICES: Final = 1_000
METRICS: Final = ("temperature", "humidity", "pressure", "vibration")
PARTITIONS: Final = 4
TOPIC_FILTER: Final = "devices/+/telemetry"
# Bytewax in a process whose connections no wire is put on.
WITHOUT_WIRE: Final = (
    "import asyncio, runpy, connectors.mqtt_client as client; client.TappedLoop = asyncio.SelectorEventLoop; "
    "runpy.run_module('bytewax.run', run_name='__main__', alter_sys=True)"
)
STOCK, FUTURE, OURS, OURS_BY_GMQTT = (
    "stock gmqtt, receives and drops",
    "gmqtt, a future a message, drops",
    "`ingest`, into Kafka",
    "`ingest`, gmqtt going round the wire",
)


@dataclass(frozen=True)
class Run:
    """One receiver's run: messages a second, and CPU of its process, its threads included."""

    messages: int
    wall_secs: float
    cpu_secs: float


def fleet_messages(count: int = 10_000) -> list[Message]:
    """Telemetry of four metrics in protobuf, of now: about 150 bytes a PUBLISH."""
    chance = random.Random(1)
    now_ms = time.time_ns() // 1_000_000
    made = []
    for n in range(count):
        device = f"device-{n % DEVICES:07d}"
        metrics = {name: chance.random() * 100 for name in METRICS}
        telemetry = Telemetry(device_id=device, ts=now_ms - n % 3_000, metrics=metrics)
        made.append((f"devices/{device}/telemetry", telemetry.SerializeToString(), None))
    return made


def replayed(kind: str, messages: int, bootstrap_servers: str, folder: Path) -> Run:
    """``messages`` from the replaying server to one receiver: from the first PUBLISH to the last PUBACK."""
    replay = Replay(fleet_messages(), messages)
    receiver = _receiver(kind, replay.url, replay.total, bootstrap_servers, folder)
    try:
        replay.await_subscribed()
        cpu = receiver.cpu_secs()
        wall = replay.run(RUN_SECS_MAX)
        cpu = receiver.cpu_secs() - cpu
    finally:
        receiver.stop()
        replay.close()
    receiver.check()
    return Run(replay.total, wall, cpu)


def queued(kind: str, messages: int, bootstrap_servers: str, folder: Path) -> Run:
    """``messages`` that Mosquitto has queued for the receiver when it connects: from the first to the last."""
    broker = Mosquitto(folder / "mosquitto", persistence=False)
    broker.start()
    try:
        _subscribe(broker.port)
        _fill(broker.port, fleet_messages(), messages)
        receiver = _receiver(kind, broker.url, messages, bootstrap_servers, folder)
        try:
            began = receiver.await_count(1)
            cpu = receiver.cpu_secs()
            ended = receiver.await_count(messages)
            cpu = receiver.cpu_secs() - cpu
        finally:
            receiver.stop()
        receiver.check()
    finally:
        broker.stop()
        broker.erase()
    return Run(messages, ended - began, cpu)


class _Receiver:
    """A process that receives, as the benches see it. ``await_count`` answers when that many messages have come."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
        with (folder / "receiver.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, env=environment | {"POLARS_MAX_THREADS": "1"}
            )

    def cpu_secs(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SEC

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def await_count(self, count: int) -> float:
        """When ``count`` messages had come: asked for 1 first, then for all of them, which is when it speaks."""
        assert self.process.stdout is not None, count
        return float(self.process.stdout.readline())

    def check(self) -> None:
        """What drops has nothing to show."""


class _Ingest(_Receiver):
    """The dataflow, and the topic it appends to."""

    def __init__(self, url: str, total: int, bootstrap_servers: str, folder: Path, *, wire: bool) -> None:
        self._total = total
        name = f"bench.{uuid.uuid4().hex[:8]}"
        plain = {
            "mqtt": {"url": url, "client_id": "bench"},
            "kafka": {
                "bootstrap_servers": bootstrap_servers,
                "partitions": PARTITIONS,
                "events_topic": name,
                "dead_letter_topic": f"{name}.dead",
            },
            "output": {"topic": f"{name}.minute"},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plain))
        settings = load(path, {})
        kafka_topics.ensure(settings)
        self._topic = name
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": name, "enable.auto.commit": False}
        )
        start = ["-m", "bytewax.run"] if wire else ["-c", WITHOUT_WIRE]
        super().__init__([sys.executable, *start, f"dataflows.ingest:flow('{path}')", "-s", "1"], folder)

    def await_count(self, count: int) -> float:
        deadline = time.monotonic() + RUN_SECS_MAX
        while self._appended() < count:
            assert time.monotonic() < deadline, f"{self._appended()} of {count} records in {RUN_SECS_MAX} s"
            assert self.process.poll() is None, "ingest ended by itself"
            time.sleep(0.01)
        return time.perf_counter()

    def _appended(self) -> int:
        """Records in the topic; ticks, a few a second, count as well."""
        parts = [TopicPartition(self._topic, partition) for partition in range(PARTITIONS)]
        try:
            return sum(self._consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts)
        except KafkaException:
            return 0  # a topic made a moment ago is not known everywhere

    def check(self) -> None:
        """The log has each message once: those with a key, since ticks have none."""
        end = self._appended()
        self._consumer.assign([TopicPartition(self._topic, partition, 0) for partition in range(PARTITIONS)])
        seen = messages = 0
        while seen < end:
            batch = self._consumer.consume(10_000, 10)
            assert batch, f"{seen} of {end} records could be read"
            seen += len(batch)
            messages += sum(message.key() is not None for message in batch)
        self._consumer.close()
        assert messages == self._total, f"{messages} messages in the log, {self._total} sent"


def _receiver(kind: str, url: str, total: int, bootstrap_servers: str, folder: Path) -> _Receiver:
    if kind in (OURS, OURS_BY_GMQTT):
        return _Ingest(url, total, bootstrap_servers, folder, wire=kind == OURS)
    name = "stock" if kind == STOCK else "future"
    arguments = [name, url, TOPIC_FILTER, str(total)]
    return _Receiver([sys.executable, "-m", "infra.bench.delivery_stock", *arguments], folder)


def _subscribe(port: int) -> None:
    """The session of client ``bench-0``, whose queue the broker fills from now on."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(mqtt5.connect("bench-0", 60, 600, False, None, None))
        _await(connection, b"\x20")
        topic = TOPIC_FILTER.encode()
        body = b"\x00\x01\x00" + len(topic).to_bytes(2) + topic + b"\x01"
        connection.sendall(b"\x82" + bytes([len(body)]) + body)
        _await(connection, b"\x90")
        connection.sendall(b"\xe0\x00")


def _await(connection: socket.socket, first: bytes) -> None:
    answer = connection.recv(1_024)
    assert answer[:1] == first, answer


def _fill(port: int, messages: Sequence[Message], count: int) -> None:
    """Publish ``count`` of ``messages``, over and over, at QoS 1."""
    window = 1_000
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(mqtt5.connect("bench-devices", 60, 0, True, None, None))
        reader = mqtt5.Reader()
        while not reader.feed(connection.recv(1_024)):
            pass
        for first in range(0, count, window):
            wanted = min(window, count - first)
            part = [messages[(first + n) % len(messages)] for n in range(wanted)]
            connection.sendall(b"".join(mqtt5.publish(*_swapped(m, n)) for n, m in enumerate(part, 1)))
            while wanted:
                wanted -= sum(isinstance(packet, mqtt5.Puback) for packet in reader.feed(connection.recv(65_536)))


def _swapped(message: Message, packet_id: int) -> tuple[str, int, bytes, str | None]:
    topic, payload, content_type = message
    return topic, packet_id, payload, content_type
