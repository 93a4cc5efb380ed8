"""Databases and topics for the connectors' tests."""

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from connectors import kafka_client
from schemas.settings import KafkaSettings
from tests.connectors.kafka_place import DEADLINE_SECS, make


@pytest.fixture
def cluster(kafka_bootstrap: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka_bootstrap)


@pytest.fixture
def admin(cluster: KafkaSettings) -> AdminClient:
    return kafka_client.admin(cluster)


@pytest.fixture
def topic(admin: AdminClient) -> Iterator[str]:
    """A fresh topic of two partitions."""
    name = f"test.{uuid.uuid4().hex}"
    make(admin, name)
    yield name
    admin.delete_topics([name])[name].result(DEADLINE_SECS)
