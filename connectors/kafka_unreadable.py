"""Batches of the log that nobody can decompress: another producer's bomb, which would hold up its partition for ever.

librdkafka (2.16) gives up where a batch has more than ``receive.message.max.bytes`` (100 MB) decompressed, says so,
and fetches the same batch again, without end. Brokers take such batches, since they measure them compressed.

Rule: each offset of such a batch is read as one record that no decoder takes (``UNREADABLE``), so that it is accounted
for as refused, goes to the dead letter with its partition and offset, and the log goes on. It is stamped with the
beginning of time, which closes no window; a replay reads the same.
"""

from typing import Final

from confluent_kafka import KafkaError

ERRORS: Final = frozenset({KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG})
TRIES: Final = 5  # half a second each: a broken answer is not a broken batch, and a broker may mend itself
UNREADABLE: Final = b"\x07a batch of records at this offset could not be decompressed"  # 7 is no type of protobuf's
APPENDED_MS: Final = 0


class Unreadable:
    """How often the batch at the next offset could not be read."""

    def __init__(self) -> None:
        self._offset = -1
        self._tries = 0
        self._amid = False  # the offset before was unreadable: they are of one batch

    def met(self, offset: int) -> None:
        """The batch at ``offset``, which is to be read next, could not be read."""
        self._tries = self._tries + 1 if offset == self._offset else 1
        self._offset = offset

    def is_given_up(self, offset: int) -> bool:
        """Whether ``offset`` is to be passed over; from then on it is."""
        if offset != self._offset or self._tries < (1 if self._amid else TRIES):
            return False
        self._offset, self._tries, self._amid = -1, 0, True
        return True

    def passed(self) -> None:
        """Something could be read."""
        self._amid = False
