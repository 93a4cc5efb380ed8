"""TLS, client certificates and passwords, against a broker that insists on them; each mistake is one message.

The broker is the embedded one, with certificates made for the test by OpenSSL's command.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from connectors.mqtt_address import check_credentials, read_address, tls_context
from infra.embedded.mqtt import Login, MqttBroker, Tls
from schemas.errors import OperatorError
from schemas.settings import MqttSettings
from tests.connectors.mqtt_flow import Ledger, run, running

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make certificates")

LOGIN = Login("ingest", "correct-horse")


@dataclass(frozen=True)
class Certificates:
    """An authority, a server and a client signed by it, and a stranger that is not."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    for authority in ("ca", "stranger"):
        openssl(
            folder,
            "req",
            "-x509",
            *new_key(authority),
            "-subj",
            f"/CN={authority}",
            "-days",
            "2",
            "-out",
            f"{authority}.pem",
        )
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        openssl(folder, "req", *new_key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr")
        (folder / "extensions").write_text(
            f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n"
        )
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions"]
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
    return Certificates(folder)


def new_key(name: str) -> list[str]:
    return ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key"]


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttBroker]:
    broker = MqttBroker(tmp_path_factory.mktemp("guarded"), login=LOGIN)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[MqttBroker]:
    folder = certificates.folder
    tls = Tls(folder / "server.pem", folder / "server.key", client_ca=folder / "ca.pem")
    broker = MqttBroker(tmp_path_factory.mktemp("secured"), login=LOGIN, tls=tls)
    broker.start()
    yield broker
    broker.stop()


def message_of(settings: MqttSettings) -> str:
    """The one message that a flow with these settings ends with."""
    with pytest.raises(OperatorError) as raised:
        run(settings, "t/+", Ledger())
    message = str(raised.value)
    assert "\n" not in message
    assert settings.password is None or settings.password not in message
    return message


@pytest.mark.embedded
def test_with_user_and_password_it_connects(guarded: MqttBroker) -> None:
    """And ticks, so it is subscribed."""
    ledger = Ledger()
    settings = MqttSettings(url=guarded.url, username="ingest", password=LOGIN.password, tick_secs=0.1)
    with running(settings, "t/+", ledger):
        ledger.await_tick()


@pytest.mark.embedded
@pytest.mark.parametrize("username", ["ingest", "someone", None])
def test_a_wrong_password_is_one_message(guarded: MqttBroker, username: str | None) -> None:
    """It names the settings to look at, and not what was in them."""
    password = None if username is None else "wrong-horse"
    message = message_of(MqttSettings(url=guarded.url, username=username, password=password))
    assert "mqtt.username" in message or "another user" in message
    assert guarded.address in message


@needs_openssl
@pytest.mark.embedded
def test_with_certificates_it_connects(secured: MqttBroker, certificates: Certificates) -> None:
    """The server's is checked against ca_file, and the client's own is presented."""
    ledger = Ledger()
    with running(secure(secured, certificates), "t/+", ledger):
        ledger.await_tick()


@needs_openssl
@pytest.mark.embedded
def test_a_server_nobody_vouches_for_is_one_message(secured: MqttBroker, certificates: Certificates) -> None:
    """Another authority: no connection, and the message names ca_file."""
    message = message_of(secure(secured, certificates, ca_file=certificates.path("stranger.pem")))
    assert "certificate is not accepted" in message
    assert "mqtt.ca_file" in message


@needs_openssl
@pytest.mark.embedded
def test_a_missing_client_certificate_is_one_message(secured: MqttBroker, certificates: Certificates) -> None:
    """The broker hangs up or says so; the message names cert_file."""
    assert "mqtt.cert_file" in message_of(secure(secured, certificates, cert_file=None, key_file=None))


@needs_openssl
@pytest.mark.embedded
def test_tls_to_a_plain_port_is_one_message(guarded: MqttBroker, certificates: Certificates) -> None:
    """It asks whether that is a TLS port."""
    message = message_of(secure(guarded, certificates))
    assert "TLS" in message


@needs_openssl
def test_files_that_do_not_fit_name_their_setting(certificates: Certificates) -> None:
    """A key that is another's, a certificate that is none, a file that is not there."""
    path = certificates.path
    address = read_address("mqtts://127.0.0.1")
    for files, named in (
        ({"ca_file": path("no.pem")}, "mqtt.ca_file: there is no file"),
        ({"ca_file": path("ca.key")}, "mqtt.ca_file"),
        ({"cert_file": path("client.pem"), "key_file": path("server.key")}, "mqtt.cert_file (with mqtt.key_file)"),
        ({"cert_file": path("ca.key"), "key_file": path("ca.key")}, "mqtt.cert_file"),
    ):
        with pytest.raises(OperatorError) as raised:
            tls_context(MqttSettings(**files), address)
        assert named in str(raised.value)


def secure(broker: MqttBroker, certificates: Certificates, **more: str | None) -> MqttSettings:
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    paths: dict[str, str | None] = {name: certificates.path(file) for name, file in files.items()}
    return MqttSettings(
        url=f"mqtts://{broker.address}", username="ingest", password=LOGIN.password, tick_secs=0.1, **(paths | more)
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://x",
        "mqtt://",
        "mqtt://x:port",
        "mqtt://x:70000",
        "mqtt://[::1",
        "mqtt://x/path",
        "ws://x",
    ],
)
def test_a_url_that_is_none_says_how_to_write_one(url: str) -> None:
    """Each with the form to follow."""
    with pytest.raises(OperatorError, match=r"mqtts?://HOST:PORT"):
        read_address(url)


def test_credentials_in_the_url_are_refused_and_not_repeated() -> None:
    """They would end up in logs."""
    with pytest.raises(OperatorError) as raised:
        read_address("mqtt://me:hunter2@broker:1883")
    assert "hunter2" not in str(raised.value)
    assert "mqtt.password" in str(raised.value)


def test_a_url_without_a_port_has_the_usual_one() -> None:
    """1883, and 8883 for TLS; IPv6 in brackets."""
    assert str(read_address("mqtt://broker")) == "mqtt://broker:1883"
    assert str(read_address("mqtts://[::1]")) == "mqtts://::1:8883"


def test_settings_that_cannot_connect_are_named() -> None:
    """A password without a user, TLS files without TLS, a client id that is no name."""
    for settings, named in (
        (MqttSettings(password="p"), "mqtt.username"),
        (MqttSettings(client_id="ü"), "mqtt.client_id"),
    ):
        with pytest.raises(OperatorError, match=named):
            check_credentials(settings)
    with pytest.raises(OperatorError, match="is not mqtts"):
        tls_context(MqttSettings(ca_file="x"), read_address("mqtt://broker"))
