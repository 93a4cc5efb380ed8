"""A record on its way into Kafka: what dataflows hand to a sink, before any client library sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

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


@dataclass(frozen=True, slots=True)
class Keyed(Sequence[Record]):
    """Records for one partition that have a key and no headers, as columns: to make an object of each takes as long as
    to encode it."""

    topic: str
    partition: int
    keys: Sequence[bytes]
    values: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> "Keyed": ...
    def __getitem__(self, at: int | slice) -> "Record | Keyed":
        if isinstance(at, slice):
            return Keyed(self.topic, self.partition, self.keys[at], self.values[at])
        return Record(self.topic, self.values[at], self.keys[at], partition=self.partition)
