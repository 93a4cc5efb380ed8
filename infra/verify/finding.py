"""What is not as it should be, and where."""

from datetime import date
from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is not explained. What is None is not narrowed down."""

    what: str
    partition: int | None = None
    day: date | None = None
    first_offset: int | None = None
    last_offset: int | None = None

    def __str__(self) -> str:
        where = []
        if self.partition is not None:
            where.append(f"partition {self.partition}")
        if self.first_offset is not None:
            last = self.first_offset if self.last_offset is None else self.last_offset
            where.append(f"offset {last}" if last == self.first_offset else f"offsets {self.first_offset} to {last}")
        if self.day is not None:
            where.append(f"day {self.day}")
        return f"{', '.join(where)}: {self.what}" if where else self.what
