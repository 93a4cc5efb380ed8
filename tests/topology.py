"""Both dataflows as processes of their own, between servers that a test was given, with names nobody else uses."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import yaml
from confluent_kafka import Consumer, Message, TopicPartition

from connectors import kafka_client, kafka_topics
from infra.migrations import migrate
from schemas.settings import Settings
from schemas.settings_file import load

ROOT = Path(__file__).parents[1]
DEADLINE_SECS = 90.0


def wait_for(condition: Callable[[], Any], what: str, otherwise: Callable[[], Any] = str) -> None:
    """Ask until it holds, and fail with ``what``, and what there is ``otherwise``, where it does not in time."""
    deadline = time.monotonic() + DEADLINE_SECS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECS:.0f} s: {what}: {otherwise()}"
        time.sleep(0.1)


@dataclass
class Topology:
    """Settings and running processes. ``prefix`` begins every name it uses at the servers."""

    prefix: str
    folder: Path
    settings_path: Path
    settings: Settings
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        """The template that devices publish to."""
        return self.settings.mqtt.topic

    def start(self, flow: str, *options: str, name: str = "") -> str:
        """Start a dataflow as ``python -m bytewax.run`` does; answers with the name to ``stop`` it by."""
        name = name or flow
        target = f"dataflows.{flow}:flow('{self.settings_path}')"
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "bytewax.run", target, "-s", "1", *options],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )
        return name

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        process = self.running.pop(name)
        process.send_signal(number)
        return process.wait(DEADLINE_SECS)

    def check(self) -> None:
        """Fail with its last words where a process has ended by itself."""
        for name, process in self.running.items():
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log(name).read_text()}"

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        self.check()
        with psycopg.connect(self.settings.database.conninfo) as connection:
            return connection.execute(query.encode()).fetchall()

    def state(self) -> str:
        """Progress, ledger and last words, for a failure's message."""
        rows = self.ask("select * from progress join ledger using (flow, topic, partition) order by partition")
        logs = [f"{path.name}: {path.read_text()[-2_000:]}" for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(map(str, [*rows, *logs]))

    def records(self, topic: str) -> list[Message]:
        """Everything that stands in a topic now."""
        self.check()
        consumer: Consumer = kafka_client.consumer(self.settings.kafka, self.prefix)
        found: list[Message] = []
        try:
            for partition in consumer.list_topics(topic, DEADLINE_SECS).topics[topic].partitions:
                place = TopicPartition(topic, partition, 0)
                _, end = kafka_client.bounds(consumer, topic, partition)
                consumer.assign([place])
                while end and (not found or (found[-1].partition(), found[-1].offset()) != (partition, end - 1)):
                    message = consumer.poll(DEADLINE_SECS)
                    assert message is not None, f"{topic} can be read to its end"
                    assert message.error() is None
                    found.append(message)
        finally:
            consumer.close()
        return found


@contextmanager
def topology(
    folder: Path, kafka_bootstrap: str, database_url: str, mqtt_url: str, **sections: dict[str, Any]
) -> Iterator[Topology]:
    """A topology with topics and tables, and no process yet; at the end whatever runs is killed, topics are deleted."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    own = {
        "mqtt": {"url": mqtt_url, "client_id": prefix, "topic": f"{prefix}/{{device_id}}/telemetry"},
        "kafka": {
            "bootstrap_servers": kafka_bootstrap,
            "partitions": 3,
            "events_topic": f"{prefix}.events",
            "dead_letter_topic": f"{prefix}.dead",
        },
        "database": {"conninfo": database_url},
        "flow": {"progress_every_secs": 1},
        "output": {"topic": f"{prefix}.minute"},
        "flags": {"topic": f"{prefix}.flags"},
    }
    for name, section in sections.items():
        own[name] = {**own.get(name, {}), **section}
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(own))
    settings = load(path, {})
    migrate(database_url)
    made = Topology(prefix, folder, path, settings)
    with ExitStack() as at_end:
        at_end.enter_context(topics(settings))
        at_end.callback(_kill, made)
        yield made


@contextmanager
def beside(made: Topology, name: str, **sections: dict[str, Any]) -> Iterator[Topology]:
    """The same topology with a settings file ``name`` that differs from its own in ``sections``."""
    own = yaml.safe_load(made.settings_path.read_text())
    for section, differs in sections.items():
        own[section] = {**own.get(section, {}), **differs}
    path = made.folder / name
    path.write_text(yaml.safe_dump(own))
    other = replace(made, settings_path=path, settings=load(path, {}))
    with topics(other.settings):
        yield other


@contextmanager
def topics(settings: Settings) -> Iterator[None]:
    """Make the topics that are missing, and delete those afterwards."""
    admin = kafka_client.admin(settings.kafka)
    before = set(admin.list_topics(timeout=DEADLINE_SECS).topics)
    found = {finding.topic.name for finding in kafka_topics.ensure(settings)}
    yield
    if found - before:
        for answer in admin.delete_topics(sorted(found - before)).values():
            answer.result(DEADLINE_SECS)


def _kill(made: Topology) -> None:
    for process in made.running.values():
        process.kill()
        process.wait()
