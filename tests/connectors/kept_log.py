"""A log in memory, for tests of the protocol alone: what Kafka is for, without Kafka."""

from collections.abc import Callable, Sequence

from schemas.log import LogBatch
from schemas.progress import Anchor


class KeptLog:
    """Partitions of records; ``low`` offsets were deleted by retention."""

    def __init__(self, topic: str, lengths: Sequence[int], topic_id: str = "topic-1") -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.lengths = list(lengths)
        self.low = [0] * len(lengths)
        self.salt = 0  # changes every record, as on another cluster
        self.batch_max = 3
        self.readers: list[KeptReader] = []

    def partitions(self) -> Sequence[int]:
        return range(len(self.lengths))

    def identity(self) -> str:
        return self.topic_id

    def is_still(self, topic_id: str, since: float) -> bool:  # noqa: ARG002
        return self.topic_id == topic_id

    def bounds(self, partition: int) -> tuple[int, int]:
        return self.low[partition], self.lengths[partition]

    def anchor(self, partition: int, offset: int) -> Anchor | None:
        return (
            Anchor(offset, 1000 + offset, self.salt)
            if self.low[partition] <= offset < self.lengths[partition]
            else None
        )

    def reader(self, partition: int, offset: int) -> "KeptReader":
        self.readers.append(KeptReader(self, partition, offset))
        return self.readers[-1]


class KeptReader:
    def __init__(self, log: KeptLog, partition: int, offset: int) -> None:
        self.log, self.partition, self.next = log, partition, offset
        self.at_end: Callable[[], None] = lambda: None
        self.closed = False

    def read(self) -> LogBatch | None:
        start, end = self.next, min(self.next + self.log.batch_max, self.log.lengths[self.partition])
        if start == end:
            return None
        self.next = end
        offsets = range(start, end)
        return LogBatch(
            self.log.topic,
            self.partition,
            start,
            end,
            offsets,
            [1000 + o for o in offsets],
            [b"%d" % o for o in offsets],
            anchor=self.log.anchor(self.partition, end - 1),
        )

    def end(self) -> int:
        return self.log.lengths[self.partition]

    def close(self) -> None:
        self.closed = True
