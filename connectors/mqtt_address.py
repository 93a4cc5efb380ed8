"""Where the MQTT broker is and how it is spoken to: the URL, TLS, and refusals put into words.

Rule: nothing here connects. Every way of being wrong is an ``OperatorError`` that names the setting to put right,
and no secret.
"""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from schemas.errors import OperatorError, ServerAway
from schemas.settings import MqttSettings

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}

# Reason codes of CONNACK and SUBACK (MQTT 5, sections 3.2.2.2 and 3.9.3), in an operator's words.
REASONS: Final = {
    1: "it speaks no MQTT 5",
    132: "it speaks no MQTT 5",
    133: "it does not accept the client id: check mqtt.client_id",
    4: "wrong user name or password: check mqtt.username and mqtt.password",
    134: "wrong user name or password: check mqtt.username and mqtt.password",
    5: "not authorised: check mqtt.username and mqtt.password, and the broker's access rules",
    135: "not authorised: check mqtt.username and mqtt.password, and the broker's access rules",
    138: "this client is banned there",
    143: "it does not accept the topic filter: check mqtt.topic",
    151: "a quota of the broker is exceeded",
    156: "it says to use another server: check mqtt.url",
    157: "it says to use another server: check mqtt.url",
    158: "it has no shared subscriptions: set mqtt.clients to 1, or use a broker that has them",
    162: "it allows no wildcards in topic filters: check mqtt.topic",
}
TRANSIENT: Final = frozenset({3, 128, 131, 136, 137, 151, 159})  # those a reconnect may well heal


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        return f"{'mqtts' if self.secure else 'mqtt'}://{self.host}:{self.port}"


def read_address(url: str) -> Address:
    """Read ``mqtt://host[:port]`` or ``mqtts://…``. Raises ``OperatorError``, which repeats no secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise OperatorError(f"mqtt.url is no URL: {error}. Write mqtt://HOST:PORT, or mqtts://… for TLS.") from None
    if parts.username is not None or parts.password is not None:
        raise OperatorError("mqtt.url holds credentials: put them into mqtt.username and mqtt.password.")
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise OperatorError(f"mqtt.url is {url!r}: write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS.")
    return Address(parts.hostname, port or PORTS[parts.scheme], parts.scheme == "mqtts")


def check_credentials(settings: MqttSettings) -> None:
    """Raise ``OperatorError`` for settings no connection could be made with."""
    if settings.password is not None and settings.username is None:
        raise OperatorError("mqtt.password is set and mqtt.username is not: set both or none.")
    if not settings.client_id.isascii() or not settings.client_id.isprintable() or not settings.client_id:
        raise OperatorError("mqtt.client_id: use printable ASCII; it names the session and the ingest worker.")


def tls_context(settings: MqttSettings, address: Address) -> ssl.SSLContext | None:
    """The TLS context for an ``mqtts`` address, None for a plain one. Reads the certificate files."""
    files = {"ca_file": settings.ca_file, "cert_file": settings.cert_file, "key_file": settings.key_file}
    given = {name: Path(path) for name, path in files.items() if path is not None}
    if not address.secure:
        if given:
            raise OperatorError(
                f"mqtt.{next(iter(given))} is set, but mqtt.url is not mqtts://: TLS would not be used."
            )
        return None
    for name, path in given.items():
        if not path.is_file():
            raise OperatorError(f"mqtt.{name}: there is no file {path}.")
    return _context(given)


def _context(given: dict[str, Path]) -> ssl.SSLContext:
    name = "ca_file"
    try:
        context = ssl.create_default_context(cafile=given.get("ca_file"))
        name = "cert_file"
        if "cert_file" in given:
            # An encrypted key would make OpenSSL ask at the terminal; an empty password makes it an error.
            context.load_cert_chain(given["cert_file"], given.get("key_file"), password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        what = "a PEM certificate" if name == "ca_file" else "a PEM certificate with its own, unencrypted key"
        reason = getattr(error, "reason", None) or error.strerror or "unreadable"
        also = " (with mqtt.key_file)" if "key_file" in given and name == "cert_file" else ""
        raise OperatorError(f"mqtt.{name}{also}: {given[name]} does not hold {what} ({reason}).") from None
    return context


def unreachable(address: Address, error: OSError | TimeoutError) -> OperatorError:
    """Why no connection could be made, and what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return OperatorError(
            f"MQTT broker at {address}: its certificate is not accepted: {error.verify_message}. Check mqtt.ca_file "
            "(the authority that signed it) and the host name in mqtt.url."
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return OperatorError(
            f"MQTT broker at {address}: TLS failed ({reason}). Is that a TLS port, and does the broker accept "
            "mqtt.cert_file?"
        )
    if isinstance(error, ConnectionError) and error.errno:
        reason = os.strerror(error.errno)  # asyncio's own words repeat the address
    else:
        reason = error.strerror or str(error) or "no answer in time"
    running = "Is it running there, and is that a TLS port?" if address.secure else "Is it running there?"
    return ServerAway(f"MQTT broker at {address}: cannot connect ({reason}). {running} Check mqtt.url (or MQTT_URL).")


def hung_up(address: Address) -> OperatorError:
    return ServerAway(
        f"MQTT broker at {address}: it closed the connection instead of answering. It must speak MQTT 5; it may want "
        "TLS (mqtts://), a client certificate (mqtt.cert_file, mqtt.key_file), or another user."
    )


def refused(address: Address, code: int) -> OperatorError:
    """A CONNACK that is no success."""
    reason = REASONS.get(code, f"reason code {code}")
    kind = ServerAway if code in TRANSIENT else OperatorError
    return kind(f"MQTT broker at {address} refused the connection: {reason}.")


def not_subscribed(address: Address, topic_filter: str, code: int) -> OperatorError:
    """A SUBACK that does not grant QoS 1."""
    if code < 128:
        return OperatorError(
            f"MQTT broker at {address} grants only QoS {code} for {topic_filter!r}, which loses readings. Allow QoS 1."
        )
    reason = REASONS.get(code, f"reason code {code}")
    return OperatorError(f"MQTT broker at {address} refused the subscription to {topic_filter!r}: {reason}.")
