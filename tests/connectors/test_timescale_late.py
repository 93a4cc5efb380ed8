"""Late readings where the raw archive runs: told apart the same, however far the archive is at each commit.

The hazard made likely: a device sends a reading again, late, whose first copy was on time; the archive is behind it,
beyond it, or has not begun.
"""

from dataclasses import dataclass, replace

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from connectors.timescale_late import Archive
from connectors.timescale_raw import RawWriter
from connectors.timescale_rollups import RollupWriter
from schemas.frames import READINGS
from schemas.log import Landing, Outcome
from schemas.progress import Claim, Counts, Progress
from tests.connectors import outcomes as drawn
from tests.connectors.outcomes import FIRST_BUCKET, LENGTH_MS, Reading, Step
from tests.connectors.timescale_tables import Kept, claimed, dead_letter, everything, rows, store

pytestmark = [pytest.mark.embedded, pytest.mark.contract]
ARCHIVE = Archive("raw_archive", "raw_telemetry")
TABLES = ("rollups_1m", "late_readings", "late_waiting", "raw_telemetry", "progress", "ledger", "ledger_days")
shared_database = settings(
    deadline=None,
    max_examples=max(settings.default.max_examples // 4, 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def logs(draw: st.DrawFn) -> list[Step]:
    """Steps in which late readings often repeat one that was on time, or its twin but for the sign."""
    made = draw(drawn.steps(most=4))
    on_time = [(i, reading) for i, step in enumerate(made) for reading in step.on_time]
    for i, step in enumerate(made):
        earlier = [reading for at, reading in on_time if at <= i]
        late = []
        for reading in step.late:
            if earlier and draw(st.booleans()):
                copy = draw(st.sampled_from(earlier))
                reading = replace(
                    copy, offset=reading.offset, late=True, value=draw(st.sampled_from([1, 1, -1])) * copy.value
                )
            late.append(reading)
        made[i] = replace(step, late=tuple(late))
    return made


@dataclass
class Flows:
    """Both flows on one partition, committed a step at a time, in any order."""

    conninfo: str
    made: list[Step]

    def __post_init__(self) -> None:
        self.items = drawn.outcomes(self.made)
        self.archive_store = store(self.conninfo, "raw_archive", output="raw_telemetry", shape="every reading")
        self.rollup_store = store(self.conninfo)
        self.archived = self.rolled = 0
        self.archive: Claim | None = None
        self.published = Kept()
        self.rollups = self.claim_rollups()

    def claim_rollups(self) -> tuple[Claim, RollupWriter, Progress]:
        claim = claimed(self.rollup_store)
        writer = RollupWriter(claim, "rollups_1m", "aggregates.minute", LENGTH_MS, self.published, dead_letter, ARCHIVE)
        return claim, writer, claim.progress

    def land(self) -> None:
        """The archive commits its next step."""
        if self.archived == len(self.made):
            return
        self.archive = self.archive or claimed(self.archive_store)
        step, before = self.made[self.archived], self.made[self.archived - 1].end if self.archived else 0
        readings = sorted([*step.on_time, *step.late], key=lambda r: r.offset)
        frame = pl.DataFrame(
            [(r.event_time, r.device_id, r.metric, r.value, r.offset) for r in readings], schema=READINGS, orient="row"
        )
        counts = Counts(messages=step.end - before, readings=len(readings), counted=len(readings))
        item = Landing(0, frame, counts, Progress(step.end, step.end, 0))
        writer = RawWriter(self.archive, "raw_telemetry")
        self.archive_store.seal(
            self.archive, Progress(before, before, 0), item.progress, lambda tx: writer.write(tx, [item], counts)
        )
        self.archived += 1

    def roll(self) -> None:
        """minute_rollups commits its next step."""
        if self.rolled < len(self.items):
            self._seal(self.items[self.rolled])
            self.rolled += 1

    def tick(self) -> None:
        """A record comes that brings nothing but its offset."""
        before = self.rollups[2]
        after = replace(before, position=before.position + 1, resume=before.position + 1)
        nothing = drawn.without_rows(self.items[0])
        self._seal(replace(nothing, progress=after, counts=Counts(ticks=1)))

    def restart(self) -> None:
        """minute_rollups is killed and starts again."""
        self.rollups = self.claim_rollups()

    def _seal(self, item: Outcome) -> None:
        claim, writer, before = self.rollups
        assert writer.has_rows(item) or item.counts.ticks
        items = [item] if writer.has_rows(item) else []
        self.rollup_store.seal(claim, before, item.progress, lambda tx: writer.write(tx, items, item.counts))
        self.rollups = claim, writer, item.progress

    def finish(self) -> None:
        while self.rolled < len(self.items):
            self.roll()
        while self.archived < len(self.made):
            self.land()
        self.tick()
        self.archive_store.close()
        self.rollup_store.close()


def emptied(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        connection.execute("; ".join(f"delete from {table}" for table in TABLES).encode())


def state(conninfo: str) -> dict[str, list[tuple[object, ...]]]:
    """What must not depend on who was faster: the evidence of who that was, and how far progress is, left out."""
    found = everything(conninfo)
    del found["progress"], found["ledger"]
    found["late_readings"] = rows(conninfo, 'select device_id, metric, event_time, value, "offset" from late_readings')
    found["ledger"] = rows(conninfo, "select flow, readings, counted, late, late_duplicates, open from ledger")
    return found


@shared_database
@given(logs(), st.lists(st.sampled_from(["land", "roll", "roll", "tick", "restart"]), max_size=12))
def test_who_is_faster_changes_nothing(migrated_url: str, made, acts) -> None:
    """The archive first, then the rollups: the same tables as in any order of their commits, once both are through.

    Only that the archive has begun is asked; a flow whose archive begins later has counted what came before.
    """
    emptied(migrated_url)
    undisturbed = Flows(migrated_url, made)
    while undisturbed.archived < len(made):
        undisturbed.land()
    undisturbed.finish()
    expected = state(migrated_url)

    emptied(migrated_url)
    flows = Flows(migrated_url, made)
    flows.land()
    for act in acts:
        getattr(flows, act)() if act != "tick" or flows.rolled == len(made) else None
        balance(migrated_url)
    event(f"waited: {bool(rows(migrated_url, 'select 1 from late_waiting'))}")
    flows.finish()

    assert state(migrated_url) == expected
    assert rows(migrated_url, "select * from late_waiting") == []


def balance(conninfo: str) -> None:
    """The ledger explains every reading at every commit, those that wait as open."""
    wrong = "select * from ledger where readings <> counted + late + duplicates + late_duplicates + open"
    assert rows(conninfo, wrong) == []
    waiting = rows(conninfo, "select count(*) from late_waiting")
    assert rows(conninfo, "select coalesce(sum(open), 0)::bigint from ledger where flow = 'minute_rollups'") == waiting


@shared_database
@given(logs())
def test_no_reading_is_counted_twice(migrated_url: str, made) -> None:
    """Rows are one group by over identities: neither copies of late readings nor those of on-time ones count again."""
    emptied(migrated_url)
    flows = Flows(migrated_url, made)
    while flows.archived < len(made):
        flows.land()
    flows.finish()
    seen: dict[tuple[object, ...], Reading] = {}
    for reading in sorted((r for step in made for r in (*step.on_time, *step.late)), key=lambda r: r.offset):
        seen.setdefault(reading.identity, reading)
    counts: dict[tuple[str, str, int], int] = {}
    for reading in seen.values():
        key = (reading.device_id, reading.metric, reading.bucket)
        counts[key] = counts.get(key, 0) + 1
    found = rows(
        migrated_url, "select device_id, metric, (extract(epoch from bucket) * 1000)::bigint, count from rollups_1m"
    )
    assert {row[:3]: row[3] for row in found} == counts
    late_copies = sum(r.late for step in made for r in (*step.on_time, *step.late)) - sum(r.late for r in seen.values())
    assert rows(migrated_url, "select late_duplicates from ledger where flow = 'minute_rollups'") == [(late_copies,)]


def one_copy() -> list[Step]:
    """A reading on time, and its copy, late."""
    reading = Reading(0, "boiler-7", "temperature", FIRST_BUCKET, 21.5, False)
    return [
        Step(2, FIRST_BUCKET, (reading,), (), 0),
        Step(4, FIRST_BUCKET + LENGTH_MS, (), (replace(reading, offset=2, late=True),), 0),
    ]


def test_a_late_reading_waits_for_the_archive_and_counts_as_open(migrated_url: str) -> None:
    """It is neither late nor a late duplicate before the archive has passed it; a restart does not forget it."""
    flows = Flows(migrated_url, one_copy())
    flows.land()
    flows.roll()
    flows.roll()
    ledger = "select late, late_duplicates, open from ledger where flow = 'minute_rollups'"
    assert rows(migrated_url, ledger) == [(0, 0, 1)]
    flows.restart()
    flows.land()
    flows.tick()
    assert rows(migrated_url, ledger) == [(0, 1, 0)]
    assert rows(migrated_url, "select count, revision from rollups_1m") == [(1, 0)]
    flows.finish()


def test_an_archive_that_is_given_up_is_not_waited_for(migrated_url: str) -> None:
    """Its progress deleted, or archive.tells_copies switched off, what waits counts as late."""
    flows = Flows(migrated_url, one_copy())
    flows.land()
    flows.roll()
    flows.roll()
    with psycopg.connect(migrated_url) as connection:
        connection.execute("delete from progress where flow = 'raw_archive'")
    flows.tick()
    assert rows(migrated_url, "select late, late_duplicates, open from ledger where flow = 'minute_rollups'") == [
        (1, 0, 0)
    ]
    assert rows(migrated_url, "select count, revision from rollups_1m") == [(2, 1)]
    flows.rollup_store.close()


def test_copies_before_the_flows_start_do_not_count_as_on_time(migrated_url: str) -> None:
    """A flow that began with "latest" never counted them: the late one is its only copy."""
    made = one_copy()
    flows = Flows(migrated_url, made)
    flows.land()
    flows.land()
    with psycopg.connect(migrated_url) as connection:
        connection.execute("update progress set start = 2, position = 2, resume = 2 where flow = 'minute_rollups'")
    flows.restart()
    flows._seal(replace(flows.items[1], counts=replace(flows.items[1].counts, gaps=0)))
    assert rows(migrated_url, "select late, late_duplicates from ledger where flow = 'minute_rollups'") == [(1, 0)]
    flows.rollup_store.close()
