"""The dead letter as it grows: what could not be used, and why. For people who watch; nothing is committed."""

from dataclasses import dataclass
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from connectors import kafka_client
from connectors.kafka_client import ANSWER_SECS
from schemas.settings import KafkaSettings

GROUP: Final = "ionwax-watcher"  # of the client library's making; it holds no positions
BATCH_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One payload that was refused, wholly or in part. ``source`` is the topic it came by: of MQTT, or of Kafka."""

    reason: str
    detail: str
    source: str
    payload: bytes


class DeadLetters:
    """Reads all partitions of the dead letter, from now on or from its beginning."""

    def __init__(self, settings: KafkaSettings, *, from_beginning: bool = False) -> None:
        self._topic = settings.dead_letter_topic
        self._consumer = kafka_client.consumer(settings, GROUP)
        try:
            found = self._consumer.list_topics(self._topic, timeout=ANSWER_SECS).topics[self._topic]
            if found.error is not None:
                raise KafkaException(found.error)
            self._consumer.assign([self._begin(partition, from_beginning) for partition in found.partitions])
        except KafkaException as error:
            self._consumer.close()
            known = kafka_client.explained(error.args[0], self._topic)
            raise known or kafka_client.unreachable(settings, error) from None

    def _begin(self, partition: int, from_beginning: bool) -> TopicPartition:
        place = TopicPartition(self._topic, partition)
        place.offset = OFFSET_BEGINNING
        if not from_beginning:
            _, place.offset = kafka_client.bounds(self._consumer, self._topic, partition)
        return place

    def arrived(self, wait_secs: float = 0.0) -> list[DeadLetter]:
        """What has come since the last call; waits up to ``wait_secs`` for the first."""
        found = []
        for message in self._consumer.consume(1, wait_secs) + self._consumer.consume(BATCH_MAX, 0):
            if message.error() is None:
                headers = {name: _text(value) for name, value in dict(message.headers() or []).items()}
                found.append(
                    DeadLetter(
                        reason=headers.get("reason", "?"),
                        detail=headers.get("detail", ""),
                        source=headers.get("source-topic", ""),
                        payload=message.value() or b"",
                    )
                )
        return found

    def close(self) -> None:
        self._consumer.close()


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
