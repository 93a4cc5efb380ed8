"""Two repairs of Apache Artemis 2.55.0, without which a reconnecting subscriber is served wrongly.

1. A message that is delivered again must carry DUP [MQTT-3.3.1-1]. Artemis marks what a *failed* consumer
   gave back, but tells every consumer of a lost connection that it was closed in order:
   `MQTTSubscriptionManager.stop` passes `false` to `ServerConsumer.close`. One byte makes it `true`.
2. The packet ids of what a lost connection had not acknowledged are never used again: after as many as
   there are (65,535, a single full receive window) nothing more is delivered. `MQTTSession.stop` resets
   the count of the outbound store where it has to clear it: one name in the class's constants.

Rule: the jars stay as listed; patched copies of the two classes are found first on the class path. The jar
is pinned by its digest, so each pattern occurs exactly once; anything else is a programmer's error.
Drop this when a release of Artemis passes tests/infra/test_embedded_mqtt.py without it.
"""

from pathlib import Path
from zipfile import ZipFile

_PACKAGE = "org/apache/activemq/artemis/core/protocol/mqtt"
# class → (bytes as they are, bytes as they should be)
_REPAIRS = {
    # … removeConsumer(consumer); aload_2; iconst_0 → iconst_1; consumer.close(boolean)
    "MQTTSubscriptionManager": (b"\xb9\1\x20\2\0\x2c\x03\xb9\1\x24\2\0", b"\xb9\1\x20\2\0\x2c\x04\xb9\1\x24\2\0"),
    # a constant is its length and its text; both methods take and return nothing
    "MQTTSession": (b"\0\x0eresetSendQuota", b"\0\5clear"),
}


def write_patched_classes(jar: Path, directory: Path) -> None:
    """Write the repaired classes of the MQTT protocol jar under `directory`, for the front of a class path."""
    with ZipFile(jar) as archive:
        for name, (wrong, right) in _REPAIRS.items():
            path = f"{_PACKAGE}/{name}.class"
            original = archive.read(path)
            assert original.count(wrong) == 1, f"{jar.name} is not the release that {name} was patched for"
            patched = directory / path
            patched.parent.mkdir(parents=True, exist_ok=True)
            patched.write_bytes(original.replace(wrong, right))
