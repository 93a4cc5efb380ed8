"""A record on its way into Kafka: what dataflows hand to a sink, before any client library sees it."""

from typing import NamedTuple

Headers = tuple[tuple[str, bytes], ...]


class Record(NamedTuple):
    """One record to append.

    ``partition`` None leaves the choice to the key (murmur2, as Java's clients) or, without a key, to chance.
    ``timestamp_ms`` None lets the client stamp it.
    """

    topic: str
    value: bytes
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int | None = None
