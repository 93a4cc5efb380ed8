"""What an MQTT source hands to the decoder: messages as they arrived, many to an item, and ticks.

    MqttSource ─(Arrivals | Tick)…─▶ decode ─(Record…)─▶ KafkaSink

Items of one worker are in the order in which its connection received them.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Messages that one ingest worker received, as parallel lists in order of arrival; at least one.

    - ``worker``: name of the ingest worker, which is its MQTT client id.
    - ``topics``: as published; bytes that are not UTF-8, which no broker should pass on, are U+FFFD.
    - ``payloads``: untouched, empty ones included.
    - ``content_types``: MQTT 5 ``content-type``, or None where the publisher gave none.
    - ``ingest_times``: when each was received, ms since the epoch.
    - ``dups``: True where the broker says that it sent this message before: it may already be in the log.
    """

    worker: str
    topics: Sequence[str]
    payloads: Sequence[bytes]
    content_types: Sequence[str | None]
    ingest_times: Sequence[int]
    dups: Sequence[bool]

    def __len__(self) -> int:
        return len(self.payloads)


@dataclass(frozen=True, slots=True)
class Tick:
    """All that the broker had for ``worker`` before ``ts`` (ms) is in the items before this one."""

    worker: str
    ts: int
