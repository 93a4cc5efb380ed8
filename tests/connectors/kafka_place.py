"""Topics of Apache Kafka for tests: made, and read to an offset."""

import time

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.kafka import KafkaReader
from schemas.log import LogBatch

DEADLINE_SECS = 60.0


def make(admin: AdminClient, name: str) -> None:
    """For records of any time: by default Kafka looks every five minutes, and deletes those of 1970 at once."""
    admin.create_topics([NewTopic(name, 2, 1, config={"retention.ms": "-1"})])[name].result(DEADLINE_SECS)
    deadline = time.monotonic() + DEADLINE_SECS
    while True:  # the answer comes before every broker knows the topic
        try:
            admin.describe_topics(TopicCollection([name]))[name].result(DEADLINE_SECS)
            return
        except KafkaException:
            assert time.monotonic() < deadline, "the topic is there"
            time.sleep(0.05)


def read(reader: KafkaReader, until: int) -> list[LogBatch]:
    """All batches up to the offset ``until``."""
    batches: list[LogBatch] = []
    deadline = time.monotonic() + DEADLINE_SECS
    while not batches or batches[-1].end < until:
        assert time.monotonic() < deadline, f"read {batches} within {DEADLINE_SECS} s"
        if (batch := reader.read()) is not None:
            batches.append(batch)
    reader.close()
    return batches
