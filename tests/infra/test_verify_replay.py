"""The deep check of a device that lies in two partitions, as foreign producers may have it: its rows are combined."""

from infra.verify.replay import Key, Record, Replay, Row, differences, join
from schemas.settings import Settings
from schemas.telemetry_pb2 import Telemetry

MINUTE = 60_000
BASE = 1_763_700_000_000


def log(*readings: tuple[int, float]) -> list[Record]:
    """On time each: a message a reading, and one that closes the minutes before it by its quiet."""
    times = [*readings, (BASE + 10 * MINUTE, 0.0), (BASE + 20 * MINUTE, 0.0), *readings[:1]]
    appends = [*(ts for ts, _ in readings), BASE + 10 * MINUTE, BASE + 20 * MINUTE, BASE + 21 * MINUTE]
    return [
        Record(offset, append, Telemetry(device_id="a", ts=ts, metrics={"t": value}).SerializeToString(), None)
        for offset, ((ts, value), append) in enumerate(zip(times, appends, strict=True))
    ]


def expected(*logs: list[Record]) -> dict[Key, Row]:
    rows, late = {}, set[tuple[str, str, int, bytes]]()
    for records in logs:
        again = Replay(Settings(), late=late)
        for record in records:
            again.read(record)
        join(rows, again.rows)
    assert not list(differences(rows, [(key, sums.row()) for key, sums in rows.items()], 0))
    changed = [(key, sums.row()._replace(first=99.0)) for key, sums in rows.items()]
    unsure = len(rows) - len(list(differences(rows, changed, 0)))
    assert unsure == sum("first" in sums.unsure for sums in rows.values())
    return {key: sums.row() for key, sums in rows.items()}


def test_rows_of_two_partitions_are_combined() -> None:
    """Readings of both, and of late copies one: the store keeps a late reading once, whichever partition tells it."""
    one, other = (BASE, 1.0), (BASE + 1, 2.0)
    alone = expected(log(one))["a", "t", BASE]
    both = expected(log(one), log(other))["a", "t", BASE]
    again = expected(log(one, other), log(one, other))["a", "t", BASE]
    assert (alone.count, alone.mean) == (2, 1.0)  # the repetition is late, and there is no archive to know it
    assert (both.count, both.first, both.last, both.first_ts, both.last_ts) == (4, 1.0, 2.0, BASE, BASE + 1)
    assert again.count == 2 + 2 + 1


def test_of_equal_times_in_two_partitions_either_is_first() -> None:
    """Which one the row has was decided by who committed first; the log does not say."""
    row = expected(log((BASE, 1.0)), log((BASE, 2.0)))["a", "t", BASE]
    assert (row.count, row.min, row.max) == (4, 1.0, 2.0)
