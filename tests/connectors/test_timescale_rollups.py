"""What a rollup writer leaves in the tables, however its work is cut into transactions and whatever of them is lost."""

import math
import threading
from itertools import pairwise

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.progress import Counts
from schemas.rollup_pb2 import Rollup
from tests.connectors import outcomes as drawn
from tests.connectors.outcomes import FIRST_BUCKET, LENGTH_MS, Reading, Step
from tests.connectors.timescale_tables import Kept, claimed, emptied, everything, rows, seal, store, writer

pytestmark = [pytest.mark.embedded, pytest.mark.contract]
shared_database = settings(
    deadline=None,
    max_examples=max(settings.default.max_examples // 4, 10),  # each takes a quarter of a second
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # one database for all examples, emptied before each


def ms(column: str) -> str:
    return f"(extract(epoch from {column}) * 1000)::bigint"


class Crash(Exception):
    """The process dies at this point."""


def run(conninfo: str, made: list[Step], cuts: list[int], crash_at: frozenset[int] = frozenset()) -> Kept:
    """Seal the steps in transactions that end at ``cuts``; those in ``crash_at`` are lost once, after their writes."""
    items, published = drawn.outcomes(made), Kept()
    of = store(conninfo)
    claim = claimed(of)
    before = claim.progress
    ends = sorted({cut % len(items) for cut in cuts} | {len(items)})
    for i, (first, last) in enumerate(pairwise([0, *(end for end in ends if end > 0)])):
        if i in crash_at:
            with pytest.raises(Crash):
                of.seal(claim, before, items[last - 1].progress, _dies(claim, items[first:last]))
            claim = claimed(of)
            assert claim.progress == before
        seal(of, claim, before, items[first:last], published)
        before = items[last - 1].progress
    of.close()
    return published


def _dies(claim, items):
    def work(transaction):
        writer(claim).write(transaction, items, Counts())
        raise Crash

    return work


@shared_database
@given(drawn.steps(), st.lists(st.integers(0, 5)), st.frozensets(st.integers(0, 5)))
def test_cuts_and_crashes_are_invisible(migrated_url: str, made, cuts, crash_at) -> None:
    """One transaction an outcome, or all in one, or lost half way and done again: the same tables, to the bit."""
    emptied(migrated_url)
    run(migrated_url, made, list(range(len(made))))
    expected = everything(migrated_url)
    emptied(migrated_url)
    run(migrated_url, made, cuts, crash_at)
    assert everything(migrated_url) == expected


@shared_database
@given(drawn.steps())
def test_rows_are_one_group_by_over_all_readings(migrated_url: str, made) -> None:
    """On time or late, each reading is in its row once: exact, but for mean and m2, which are so to rounding."""
    emptied(migrated_url)
    run(migrated_url, made, [])
    expected = drawn.grouped(made)
    with psycopg.connect(migrated_url) as connection:
        found = connection.execute(
            f"select device_id, metric, {ms('bucket')}, count, mean, m2, min, max, first, last, {ms('first_ts')}, "
            f"{ms('last_ts')}, revision from rollups_1m".encode()
        ).fetchall()
    assert {row[:3] for row in found} == set(expected)
    for device_id, metric, bucket, count, mean, m2, *rest in found:
        row = expected[device_id, metric, bucket]
        assert count == row.count
        scale = max(abs(row.min), abs(row.max), 1e-150)
        assert math.isclose(mean, row.mean, rel_tol=1e-12, abs_tol=1e-12 * scale)
        assert m2 == row.m2 == math.inf or math.isclose(m2, row.m2, rel_tol=1e-9, abs_tol=1e-9 * min(scale, 1e150) ** 2)
        assert rest == [row.min, row.max, row.first, row.last, row.first_ts, row.last_ts, row.revision]


@shared_database
@given(drawn.steps(most=3), drawn.steps(most=3))
def test_rows_of_two_partitions_are_one_group_by(migrated_url: str, ours, theirs) -> None:
    """The same devices in both: rollups meet, are combined, and nothing is counted twice or lost.

    Which of two readings of one time is first or last is not defined across partitions; everything else is.
    """
    emptied(migrated_url)
    of = store(migrated_url)
    for partition, made in enumerate((ours, theirs)):
        claim = claimed(of, partition)
        seal(of, claim, claim.progress, drawn.outcomes(made, partition))
    of.close()
    found = rows(
        migrated_url,
        f"select device_id, metric, {ms('bucket')}, count, min, max, {ms('first_ts')}, {ms('last_ts')}, revision "
        "from rollups_1m",
    )
    expected = [
        (*key, row.count, row.min.hex(), row.max.hex(), row.first_ts, row.last_ts, row.revision)
        for key, row in drawn.grouped(ours + theirs).items()
    ]
    assert sorted(map(signless, found), key=repr) == sorted(map(signless, expected), key=repr)


def signless(row: tuple[object, ...]) -> tuple[object, ...]:
    """0.0 and -0.0 as one: the oracle's min and max do not tell them apart."""
    return tuple("0x0.0p+0" if value == "-0x0.0p+0" else value for value in row)


@shared_database
@given(drawn.steps())
def test_the_ledger_balances_with_the_tables(migrated_url: str, made) -> None:
    """Every offset and every reading is explained, and the days' sums are what the rows hold."""
    emptied(migrated_url)
    run(migrated_url, made, [1, 3])
    (ledger,) = rows(
        migrated_url,
        "select position - start - messages - ledger.ticks - refused - gaps, "
        "readings - counted - late - duplicates - late_duplicates - open, late, combined from ledger join progress "
        "using (flow, topic, partition)",
    )
    late = rows(migrated_url, "select count(*) from late_readings")[0][0]
    assert ledger == (0, 0, late, 0)
    days = rows(migrated_url, "select day, counted + late from ledger_days where counted + late > 0")
    assert days == rows(
        migrated_url, "select (bucket at time zone 'UTC')::date, sum(count)::bigint from rollups_1m group by 1"
    )


def test_the_strategy_draws_its_hazards() -> None:
    """Late repetitions, late readings without a row, and both zeros at one time do occur."""
    seen = set()

    @settings(max_examples=300, database=None, derandomize=True)
    @given(drawn.steps())
    def look(made: list[Step]) -> None:
        late = [r for step in made for r in step.late]
        identities = {r.identity for r in late}
        on_time = {(r.device_id, r.metric, r.bucket) for step in made for r in step.on_time}
        seen.update(
            name
            for name, occurs in {
                "repeated": len(identities) < len(late),
                "new row": any((r.device_id, r.metric, r.bucket) not in on_time for r in late),
                "old row": any((r.device_id, r.metric, r.bucket) in on_time for r in late),
                "both zeros": any(_zeros(r, o) for r in late for o in late),
            }.items()
            if occurs
        )

    look()
    assert seen == {"repeated", "new row", "old row", "both zeros"}


def _zeros(one: Reading, other: Reading) -> bool:
    return one.value == other.value and one.identity != other.identity and one.identity[:3] == other.identity[:3]


def one(offset: int, value: float, late: bool = False, device_id: str = "boiler-7", after_ms: int = 0) -> Reading:
    return Reading(offset, device_id, "temperature", FIRST_BUCKET + after_ms, value, late)


def closing(
    *on_time: Reading, late: tuple[Reading, ...] = (), end: int = 10, window: int = 0, refused: int = 0
) -> Step:
    return Step(end, FIRST_BUCKET + window * LENGTH_MS, on_time, late, refused)


SUMMARY = "select device_id, count, min, max, first, last, revision from rollups_1m"


def test_a_device_in_two_partitions_has_one_row_of_both(migrated_url: str) -> None:
    """The second rollup is combined with the row, counted as such, and published as the row stands."""
    of, published = store(migrated_url), Kept()
    for partition, (value, other) in enumerate([(1.0, "kettle"), (3.0, "lamp")]):
        claim = claimed(of, partition)
        (item,) = drawn.outcomes([closing(one(0, value, after_ms=partition), one(1, 9.0, device_id=other))], partition)
        seal(of, claim, claim.progress, [item], published)
    h = float.hex
    assert rows(migrated_url, SUMMARY) == [
        ("boiler-7", 2, h(1.0), h(3.0), h(1.0), h(3.0), 0),
        ("kettle", 1, h(9.0), h(9.0), h(9.0), h(9.0), 0),
        ("lamp", 1, h(9.0), h(9.0), h(9.0), h(9.0), 0),
    ]
    assert rows(migrated_url, "select partition, combined, counted from ledger") == [(0, 0, 2), (1, 1, 2)]
    counts = [(r.partition, Rollup.FromString(r.value).count) for r in published.records if r.key == b"boiler-7"]
    assert counts == [(0, 1), (1, 2)]


ROW = (
    "(to_timestamp(%(s)s), 'boiler-7', 'temperature', 1, 0, 0, 0, 0, 0, 0, to_timestamp(%(s)s), to_timestamp(%(s)s), 0)"
)


@pytest.mark.parametrize("exists", [False, True])
def test_a_row_that_another_is_about_to_write_is_not_overwritten(migrated_url: str, exists: bool) -> None:
    """Whether it makes the row or changes it: the writer waits for it, and folds into what it finds then."""
    (item,) = drawn.outcomes([closing(late=(one(0, 1.0, late=True, after_ms=1),))])
    of = store(migrated_url)
    claim = claimed(of)
    insert, instant = f"insert into rollups_1m values {ROW}".encode(), {"s": FIRST_BUCKET / 1000}
    with psycopg.connect(migrated_url) as other:
        other.execute("select make_partitions('rollups_1m', array[to_timestamp(%(s)s)])", instant)
        other.commit()
        other.execute(insert, instant)
        if exists:
            other.commit()
            other.execute("update rollups_1m set count = 7")
        sealing = threading.Thread(target=seal, args=(of, claim, claim.progress, [item]))
        sealing.start()
        wait_for_a_lock(migrated_url, sealing)
        other.commit()
        sealing.join(30)
    h = float.hex
    assert rows(migrated_url, SUMMARY) == [("boiler-7", 8 if exists else 2, h(0.0), h(1.0), h(0.0), h(1.0), 1)]


def wait_for_a_lock(conninfo: str, waiting: threading.Thread) -> None:
    """Until a session of this database waits for another's transaction."""
    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    with psycopg.connect(conninfo, autocommit=True) as watching:
        while watching.execute(waits).fetchone() == (0,):
            assert waiting.is_alive()
            watching.execute("select pg_sleep(0.01)")


def test_what_is_published_is_what_the_rows_are(migrated_url: str) -> None:
    """Rollups by device, in their partition; after a window its end; then revised rows, whole, and dead letters."""
    made = [
        closing(one(0, 1.0), one(1, 2.0, device_id="🌡"), refused=1),
        closing(one(10, 3.0, after_ms=LENGTH_MS), late=(one(11, 5.0, late=True),), end=20, window=1),
    ]
    of, published = store(migrated_url), Kept()
    claim = claimed(of, 3)
    items = drawn.outcomes(made, 3)
    seal(of, claim, claim.progress, items, published)
    told = [(r.topic, r.key, r.partition, dict(r.headers), Rollup.FromString(r.value)) for r in published.records[:-1]]
    first, second, end_0, third, end_1, revised = told
    assert first[:4] == ("aggregates.minute", b"boiler-7", 3, {})
    assert second[1] == "🌡".encode()
    assert (first[4].count, first[4].bucket, first[4].length_ms, first[4].revision) == (1, FIRST_BUCKET, LENGTH_MS, 0)
    assert (third[1], third[4].bucket) == (b"boiler-7", FIRST_BUCKET + LENGTH_MS)
    for i, (_, key, partition, headers, value) in enumerate([end_0, end_1]):
        end = FIRST_BUCKET + (i + 1) * LENGTH_MS
        assert (key, partition, headers) == (None, 3, {"closed": b"%d" % end})
        assert (value.bucket + value.length_ms, value.device_id) == (end, "")
    assert revised[4].revision == 1
    (row,) = rows(
        migrated_url,
        f"select mean, m2, {ms('last_ts')}, count from rollups_1m where revision = 1",
    )
    assert (revised[4].mean.hex(), revised[4].m2.hex(), revised[4].last_ts, revised[4].count) == row
    letter = published.records[-1]
    assert (letter.topic, letter.value, dict(letter.headers)) == (
        "raw.dead_letter",
        b"\xff{}",
        {"source-partition": b"3", "source-offset": b"9"},
    )


def test_a_second_flow_with_a_table_of_its_own_counts_for_itself(migrated_url: str) -> None:
    """One reading is late in both flows: each has it once, in late readings and in its row."""
    with psycopg.connect(migrated_url) as connection:
        connection.execute("select create_rollup_table('rollups_5m')")
    (item,) = drawn.outcomes([closing(late=(one(0, 5.0, late=True),))])
    for flow, table in (("minute_rollups", "rollups_1m"), ("five_minutes", "rollups_5m")):
        of = store(migrated_url, flow, output=table)
        claim = claimed(of)
        mine = writer(claim, table=table)
        of.seal(
            claim,
            claim.progress,
            item.progress,
            lambda transaction, mine=mine: mine.write(transaction, [item], item.counts),
        )
    assert rows(migrated_url, "select flow from late_readings") == [("five_minutes",), ("minute_rollups",)]
    for table in ("rollups_1m", "rollups_5m"):
        assert rows(migrated_url, f"select count, revision from {table}") == [(1, 1)]
