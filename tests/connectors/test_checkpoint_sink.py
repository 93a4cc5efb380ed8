"""When a sealing sink commits, and in which order."""

import time
from dataclasses import replace

import psycopg
import pytest

from connectors.sealing import AT_ONCE, Pace, SealingPart, SealingSink
from schemas.errors import FencedOff, OperatorError
from schemas.log import Outcome
from schemas.progress import Claim, Counts
from tests.connectors import outcomes as drawn
from tests.connectors.outcomes import FIRST_BUCKET, LENGTH_MS, Reading, Step
from tests.connectors.timescale_tables import Kept, claimed, everything, rows, store, writer

pytestmark = pytest.mark.embedded
NEVER = 1e9


def items() -> list[Outcome]:
    steps = []
    for i in range(3):
        bucket = FIRST_BUCKET + i * LENGTH_MS
        reading = Reading(10 * i, "boiler-7", "temperature", bucket, 21.5, False)
        steps.append(Step(10 * i + 10, bucket, (reading,), (), 0))
    return drawn.outcomes(steps)


def part(
    conninfo: str, every_secs: float, publisher: Kept | None = None, pace: Pace = AT_ONCE
) -> tuple[SealingPart, Claim]:
    """A part as the engine builds it, that has received its claim."""
    of = store(conninfo)
    sink = SealingSink(of, lambda: ["0"], lambda claim: writer(claim, publisher), every_secs, pace)
    built = sink.build_part("seal", "0", None)
    claim = claimed(of)
    built.write_batch([claim])
    return built, claim


def position(conninfo: str) -> int:
    return int(rows(conninfo, "select position from progress")[0][0])


def test_an_epoch_without_rows_waits_for_its_turn(migrated_url: str) -> None:
    """Progress alone is committed each ``progress_every_secs``; with the next rows, or at the end, it goes along."""
    one, two, three = items()
    waiting, _ = part(migrated_url, NEVER)
    waiting.write_batch([drawn.without_rows(one)])
    waiting.snapshot()
    assert position(migrated_url) == 0
    waiting.write_batch([two])
    waiting.snapshot()
    assert position(migrated_url) == two.progress.position
    assert rows(migrated_url, "select ticks, readings, counted from ledger") == [(10 + 1, 1, 1)]
    waiting.write_batch([drawn.without_rows(three)])
    waiting.snapshot()
    assert position(migrated_url) == two.progress.position
    waiting.close()
    assert position(migrated_url) == three.progress.position


def test_progress_is_committed_when_it_is_due(migrated_url: str) -> None:
    """With nothing but ticks, too."""
    due, _ = part(migrated_url, 0.0)
    due.write_batch([drawn.without_rows(items()[0])])
    due.snapshot()
    assert position(migrated_url) == items()[0].progress.position


def test_what_a_resume_reads_again_is_not_committed(migrated_url: str) -> None:
    """Offsets below ``position`` refill open windows; they are accounted for already."""
    part(migrated_url, 0.0)[0].close()
    again, claim = part(migrated_url, 0.0)
    before = everything(migrated_url)
    again.write_batch([replace(drawn.without_rows(items()[0]), progress=claim.progress, counts=Counts())])
    again.snapshot()
    again.close()
    assert everything(migrated_url) == before


class Watching(Kept):
    """A publisher that looks, when it is flushed, at what the database shows to others."""

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self.conninfo = conninfo
        self.seen: list[int] = []

    def flush(self) -> None:
        super().flush()
        self.seen.append(position(self.conninfo))


def test_what_is_published_is_durable_before_the_commit(migrated_url: str) -> None:
    """At the flush, the progress of what is flushed cannot be seen yet; after the snapshot it can."""
    publisher = Watching(migrated_url)
    sealing, _ = part(migrated_url, NEVER, publisher)
    for item in items():
        before = position(migrated_url)
        sealing.write_batch([item])
        sealing.snapshot()
        assert publisher.seen[-1] == before
        assert publisher.durable == len(publisher.records) > 0
        assert position(migrated_url) == item.progress.position


class Broken(Kept):
    def flush(self) -> None:
        raise OperatorError("Kafka topic aggregates.minute: a record could not be written.")


def test_what_cannot_be_published_is_not_committed(migrated_url: str) -> None:
    """The flow stops with the publisher's message, and the database knows nothing of the epoch."""
    sealing, _ = part(migrated_url, NEVER, Broken())
    before = everything(migrated_url)
    sealing.write_batch(items()[:1])
    with pytest.raises(OperatorError, match="could not be written"):
        sealing.snapshot()
    assert everything(migrated_url) == before


def test_a_part_that_was_fenced_off_publishes_nothing(migrated_url: str) -> None:
    """The fence stands before the first record."""
    publisher = Kept()
    first, _ = part(migrated_url, NEVER, publisher)
    part(migrated_url, NEVER)
    first.write_batch(items()[:1])
    with pytest.raises(FencedOff):
        first.snapshot()
    assert publisher.records == []


def test_closing_the_last_part_closes_the_connection(migrated_url: str) -> None:
    """Nothing is left open on the server."""
    sealing, _ = part(migrated_url, NEVER)
    sealing.write_batch(items()[:1])
    sealing.snapshot()
    sealing.close()
    with psycopg.connect(migrated_url) as connection:
        open_ones = "select count(*) from pg_stat_activity where datname = current_database() and application_name = %s"
        deadline = "set statement_timeout = '10s'"
        connection.execute(deadline)
        while connection.execute(open_ones, ["ionwax minute_rollups"]).fetchone() != (0,):
            connection.rollback()  # pg_stat_activity is as the transaction first saw it
            connection.execute("select pg_sleep(0.01)")


def test_rows_wait_for_others_only_while_it_is_busy(migrated_url: str) -> None:
    """The first is written at once; the next wait until they are enough, the source is at rest, or the input ends."""
    one, two, three = items()
    sealing, _ = part(migrated_url, NEVER, pace=Pace(readings=2, wait_secs=NEVER))
    sealing.write_batch([one])
    sealing.snapshot()
    assert position(migrated_url) == one.progress.position, "it was calm"
    sealing.write_batch([two])
    sealing.snapshot()
    assert position(migrated_url) == one.progress.position, "one reading is not enough"
    sealing.write_batch([three])
    sealing.snapshot()
    assert position(migrated_url) == three.progress.position, "two are"


def test_rows_do_not_wait_for_a_source_at_rest(migrated_url: str) -> None:
    """An item without an offset says that nothing more comes."""
    one, two, _ = items()
    sealing, _ = part(migrated_url, NEVER, pace=Pace(readings=2, wait_secs=NEVER))
    sealing.write_batch([one])
    sealing.snapshot()
    sealing.write_batch([two])
    sealing.write_batch([replace(drawn.without_rows(two), counts=Counts())])
    sealing.snapshot()
    assert position(migrated_url) == two.progress.position


def test_what_is_not_of_the_claimed_log_is_not_committed(migrated_url: str) -> None:
    """The source is asked about all that had come until then, before anything is written or told."""
    told: list[float] = []

    def refuse(_claim: Claim, since: float) -> None:
        told.append(since)
        raise OperatorError("another log")

    publisher = Kept()
    of = store(migrated_url)
    sink = SealingSink(of, lambda: ["0"], lambda claim: writer(claim, publisher), NEVER, check=refuse)
    built = sink.build_part("seal", "0", None)
    built.write_batch([claimed(of)])
    before = everything(migrated_url)
    begins = time.monotonic()
    built.write_batch(items())
    with pytest.raises(OperatorError, match="another log"):
        built.snapshot()
    assert begins <= told[0] <= time.monotonic()
    assert everything(migrated_url) == before
    assert not publisher.records
