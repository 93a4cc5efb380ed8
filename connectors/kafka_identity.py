"""Which log a topic's name means: Kafka gives a topic that is deleted and made again another id, and tells no reader.

A consumer whose topic is made again under it reads on in the new one from the offset where it was, without an error
(librdkafka 2.16): what stands before is never read. So the id is asked for again before what was read is committed.
"""

import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from connectors import kafka_client
from connectors.health import HEALTH
from schemas.settings import KafkaSettings

BRIEFLY_SECS: Final = 1.0  # how long a commit waits for the answer
SILENCE_SECS: Final = 5.0  # how long nobody is asked again after none has come


class TopicIdentity:
    """Asks for a topic's id again and again, by one client that it keeps."""

    def __init__(self, settings: KafkaSettings, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._topic = topic
        self._clock = clock
        self._asking: AdminClient | None = None
        self._known: tuple[str, float] = ("", 0.0)  # the id as of the latest answer, and when that was asked for
        self._silent_until = 0.0

    def is_still(self, topic_id: str, since: float) -> bool:
        """Whether what was read until ``since`` (``time.monotonic``) is of the topic of that id.

        True also where Kafka does not answer: a topic is not made again while it is away.
        """
        known, asked_at = self._known
        if asked_at < since or known != topic_id:
            known = self._ask() or topic_id
        return known == topic_id

    def _ask(self) -> str | None:
        now = self._clock()
        if now < self._silent_until or HEALTH.doubts(kafka_client.SERVER):
            return None
        self._asking = self._asking or kafka_client.admin(self._settings)
        asked = self._asking.describe_topics(TopicCollection([self._topic]), request_timeout=BRIEFLY_SECS)
        try:
            found = str(asked[self._topic].result(2 * BRIEFLY_SECS).topic_id)
        except (KafkaException, TimeoutError):  # a topic that is gone is the reader's to tell
            self._silent_until = self._clock() + SILENCE_SECS
            return None
        self._known = found, now
        return found
