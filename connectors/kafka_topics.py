"""The topics, as the settings want them: made where they are missing, compared where they exist.

Nothing here changes a topic that exists. A wrong number of partitions is not healed but named, because keys would
move to other partitions, and state never moves.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from connectors import kafka_client
from connectors.kafka_client import ANSWER_SECS, RECORD_BYTES_MAX
from schemas.errors import OperatorError
from schemas.settings import KafkaSettings, Settings

AHEAD_MS_MAX: Final = 3_600_000  # a record stamped further ahead is refused by the broker: one wrong NTP, one hour
HOUR_MS: Final = 3_600_000
LOOK_SECS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be."""

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a topic is, compared with what it should be. ``wrong`` is empty where all is well."""

    topic: Topic
    made: bool
    wrong: Sequence[str]


def wanted(settings: Settings) -> Sequence[Topic]:
    """The topics that the settings name."""
    kafka = settings.kafka
    common = {
        "retention.ms": str(kafka.retention_hours * HOUR_MS),
        "min.insync.replicas": str(kafka.min_insync_replicas),
        "max.message.bytes": str(RECORD_BYTES_MAX),
        "cleanup.policy": "delete",
    }
    log = common | {
        "message.timestamp.type": "CreateTime",  # the ingest time; "append time" of DESIGN.md
        "message.timestamp.after.max.ms": str(AHEAD_MS_MAX),
    }
    return (
        Topic(kafka.events_topic, kafka.partitions, log),
        Topic(kafka.dead_letter_topic, 1, common),
        Topic(settings.output.topic, kafka.partitions, common),
        Topic(settings.flags.topic, kafka.partitions, common),
    )


def ensure(settings: Settings) -> Sequence[Finding]:
    """Make the topics that are missing, and compare all of them. Raises ``OperatorError`` if Kafka does not answer."""
    topics = wanted(settings)
    made = _make(settings.kafka, topics)
    _await(settings.kafka, [topic for topic in topics if topic.name in made])
    found = {finding.topic.name: finding.wrong for finding in compare(settings.kafka, topics)}
    return [Finding(topic, topic.name in made, found[topic.name]) for topic in topics]


def check(settings: Settings, *names: str) -> None:
    """Raise ``OperatorError`` unless the named topics exist with the settings' number of partitions."""
    topics = [topic for topic in wanted(settings) if topic.name in names]
    for topic, partitions in zip(topics, _partitions(settings.kafka, topics), strict=True):
        if partitions is None:
            raise OperatorError(f"Kafka topic {topic.name} does not exist; ./justw topics creates it.")
        if partitions != topic.partitions:
            raise OperatorError(
                f"Kafka topic {topic.name} has {partitions} partitions, but kafka.partitions is {topic.partitions}. "
                "Set kafka.partitions to what the topic has; ./justw topics shows all."
            )


def compare(settings: KafkaSettings, topics: Sequence[Topic]) -> Sequence[Finding]:
    """Every difference between the topics and what they should be."""
    partitions = _partitions(settings, topics)
    existing = [topic for topic, count in zip(topics, partitions, strict=True) if count is not None]
    configs = _configs(settings, existing)
    return [
        Finding(topic, False, _differences(topic, count, configs.get(topic.name, {})))
        for topic, count in zip(topics, partitions, strict=True)
    ]


def _differences(topic: Topic, partitions: int | None, config: Mapping[str, str]) -> Sequence[str]:
    if partitions is None:
        return ["does not exist"]
    wrong = [f"has {partitions} partitions, should have {topic.partitions}"] if partitions != topic.partitions else []
    return wrong + [
        f"{name} is {config.get(name)}, should be {value}"
        for name, value in topic.config.items()
        if config.get(name) != value
    ]


def _make(settings: KafkaSettings, topics: Sequence[Topic]) -> set[str]:
    asking = kafka_client.admin(settings)
    asked = asking.create_topics(
        [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=settings.replication,
                config=dict(topic.config),
            )
            for topic in topics
        ],
        request_timeout=ANSWER_SECS,
    )
    made = set()
    for name, answer in asked.items():
        try:
            answer.result()
            made.add(name)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            if cause.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                raise kafka_client.unreachable(settings, error) from None
            raise OperatorError(f"Kafka would not create topic {name}: {cause.str()}.") from None
    return made


def _await(settings: KafkaSettings, made: Sequence[Topic]) -> None:
    """Wait until the cluster tells of topics it has made: it answers before every broker knows them."""
    deadline = time.monotonic() + ANSWER_SECS
    while None in _partitions(settings, made):
        if time.monotonic() >= deadline:
            raise OperatorError(f"Kafka made topics, but does not tell of them within {ANSWER_SECS:.0f} s. Is it well?")
        time.sleep(LOOK_SECS)


def _partitions(settings: KafkaSettings, topics: Sequence[Topic]) -> Sequence[int | None]:
    """How many partitions each topic has; None where it does not exist."""
    if not topics:
        return []
    asking = kafka_client.admin(settings)
    asked = asking.describe_topics(TopicCollection([topic.name for topic in topics]), request_timeout=ANSWER_SECS)
    counts: list[int | None] = []
    for topic in topics:
        try:
            counts.append(len(asked[topic.name].result().partitions))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise kafka_client.unreachable(settings, error) from None
            counts.append(None)
    return counts


def _configs(settings: KafkaSettings, topics: Sequence[Topic]) -> Mapping[str, Mapping[str, str]]:
    if not topics:
        return {}
    asking = kafka_client.admin(settings)
    asked = asking.describe_configs(
        [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics], request_timeout=ANSWER_SECS
    )
    try:
        return {
            resource.name: {name: entry.value for name, entry in answer.result().items()}
            for resource, answer in asked.items()
        }
    except KafkaException as error:
        raise kafka_client.unreachable(settings, error) from None
