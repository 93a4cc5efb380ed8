"""Servers for tests: embedded ones, started when first asked for; with --real those that the environment names.

Rule: a test names what it needs (`kafka_bootstrap`, `database_url`, `mqtt_url`) and neither knows nor cares
which kind it gets. The embedded ones are shared by a session (one set a pytest-xdist worker), so a test
uses topic names, client ids and group ids of its own; its database is fresh and its own.

Property tests try a hundred examples; ``--hypothesis-profile=thorough`` tries a hundred times as many.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples

from infra.embedded.kafka import KafkaBroker
from infra.embedded.mqtt import MqttBroker
from infra.embedded.ports import free_port as _free_port
from infra.embedded.postgres import PostgresServer
from infra.embedded.unprivileged import account_if_root, temporary_directory
from infra.migrations import migrate
from tests.databases import fresh_database

examples.register_profile(
    "ci", max_examples=100, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
examples.register_profile("thorough", parent=examples.get_profile("ci"), max_examples=10_000)
examples.load_profile("ci")


# Taken out of the environment: there they would overrule the settings that a test gives to the processes it starts.
GIVEN = {name: os.environ.pop(name, "") for name in ("MQTT_URL", "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")}


def free_port() -> int:
    """A loopback port that nothing listens on."""
    return _free_port()


@pytest.fixture(scope="session")
def server_data() -> Iterator[Path]:
    """A directory for the data of embedded servers, removed at the end."""
    import shutil

    data = temporary_directory(account_if_root())
    yield data
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(server_data: Path) -> Iterator[KafkaBroker]:
    """The session's embedded Kafka, for tests that stop or kill it: leave it running."""
    broker = KafkaBroker(server_data / "kafka", say=print)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def postgres(server_data: Path) -> Iterator[PostgresServer]:
    """The session's embedded PostgreSQL, for tests that stop or kill it: leave it running."""
    server = PostgresServer(server_data / "postgres", say=print)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mqtt_broker(server_data: Path) -> Iterator[MqttBroker]:
    """The session's embedded MQTT broker, for tests that stop or kill it: leave it running."""
    broker = MqttBroker(server_data / "mqtt")
    broker.start()
    yield broker
    broker.stop()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real",
        action="store_true",
        help="use the servers of MQTT_URL, KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL; skip what has none",
    )


def _address(request: pytest.FixtureRequest, variable: str, embedded: str, attribute: str) -> str:
    if not request.config.getoption("--real"):
        return str(getattr(request.getfixturevalue(embedded), attribute))
    if not (given := GIVEN[variable]):
        pytest.skip(f"--real, and the environment has no {variable}")
    return given


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest) -> str:
    """`bootstrap.servers` of a Kafka."""
    return _address(request, "KAFKA_BOOTSTRAP_SERVERS", "kafka", "bootstrap_servers")


@pytest.fixture(scope="session")
def mqtt_url(request: pytest.FixtureRequest) -> str:
    """The URL of an MQTT broker."""
    return _address(request, "MQTT_URL", "mqtt_broker", "url")


@pytest.fixture(scope="session")
def admin_url(request: pytest.FixtureRequest) -> str:
    """A PostgreSQL where databases may be created."""
    return _address(request, "DATABASE_URL", "postgres", "conninfo")


@pytest.fixture
def database_url(admin_url: str) -> Iterator[str]:
    """A fresh, empty database for one test, dropped after it."""
    with fresh_database(admin_url) as conninfo:
        yield conninfo


@pytest.fixture(scope="session")
def migrated_template(admin_url: str) -> Iterator[str]:
    """The name of a database with this version's tables, for copies: a quarter of the cost of migrating each."""
    with fresh_database(admin_url) as conninfo:
        migrate(conninfo)
        yield psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"]


@pytest.fixture
def migrated_url(admin_url: str, migrated_template: str) -> Iterator[str]:
    """A fresh database for one test, with this version's tables, dropped after it."""
    with fresh_database(admin_url, migrated_template) as conninfo:
        yield conninfo
