"""The end of a topic, read back: what was appended last, for a start that must know it.

Nothing is committed and no group is seen; each partition is read from ``records_max`` before its end, once.
"""

import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors import kafka_client
from connectors.kafka_client import ANSWER_SECS
from connectors.kafka_unreadable import ERRORS
from schemas.errors import OperatorError
from schemas.settings import KafkaSettings

POLL_SECS: Final = 0.1
SETTLING: Final = frozenset(  # a topic that was made a moment ago is not known everywhere at once
    {
        *kafka_client.LEADERLESS,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


def tail_values(settings: KafkaSettings, topic: str, records_max: int) -> Iterator[bytes]:
    """Values of the last ``records_max`` records of each partition. Raises ``OperatorError`` where Kafka is away."""
    for partition in range(settings.partitions):
        consumer = kafka_client.consumer(settings, "ionwax-tail")
        try:
            yield from _tail(consumer, TopicPartition(topic, partition), records_max)
        except KafkaException as error:
            raise kafka_client.explained(error.args[0], topic) or kafka_client.unreachable(settings, error) from None
        finally:
            consumer.close()


def _tail(consumer: Consumer, partition: TopicPartition, records_max: int) -> Iterator[bytes]:
    low, high = kafka_client.bounds(consumer, partition.topic, partition.partition, SETTLING)
    partition.offset = max(low, high - records_max)
    if partition.offset >= high:
        return
    consumer.assign([partition])
    deadline = time.monotonic() + ANSWER_SECS
    at = partition.offset
    while (at := max(at, consumer.position([partition])[0].offset)) < high:
        for message in consumer.consume(10_000, POLL_SECS):
            if (error := message.error()) is None:
                at = (message.offset() or 0) + 1
                yield message.value() or b""
            elif error.code() in ERRORS:
                at += 1  # nobody can read it, and nothing of ours is in it
                consumer.seek(TopicPartition(partition.topic, partition.partition, at))
            else:
                raise KafkaException(error)
            deadline = time.monotonic() + ANSWER_SECS
        if time.monotonic() > deadline:
            raise OperatorError(
                f"Kafka topic {partition.topic}, partition {partition.partition}: records from offset {at} could not "
                f"be read back within {ANSWER_SECS:.0f} s. Is the cluster healthy?"
            )
