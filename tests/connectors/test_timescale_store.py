"""The fence and the outage: who may commit, and what became of a commit whose answer was lost."""

import threading
from dataclasses import replace

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors import stopping, timescale_connection, timescale_outage
from schemas.errors import FencedOff, OperatorError
from schemas.progress import Anchor, Counts, Judged, Progress
from tests.connectors.cut_wire import wire
from tests.connectors.timescale_tables import (
    TOPIC,
    Kept,
    assert_no_secret,
    claimed,
    everything,
    items,
    rows,
    seal,
    store,
    undisturbed,
    writer,
)

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


ITEMS = items()


@pytest.fixture
def expected(migrated_url: str):
    """All tables as they stand after ``ITEMS``; the database is empty again."""
    undisturbed(migrated_url)
    found = everything(migrated_url)
    with psycopg.connect(migrated_url) as connection:
        connection.execute("truncate rollups_1m, late_readings, progress, ledger, ledger_days")
    return found


def test_a_second_claim_fences_off_the_first(migrated_url: str) -> None:
    """The former holder stops at its next commit, having written nothing."""
    first, second = store(migrated_url), store(migrated_url)
    claim = claimed(first)
    seal(first, claim, claim.progress, ITEMS[:1])
    there = everything(migrated_url)
    assert claimed(second).progress == ITEMS[0].progress
    published = Kept()
    with pytest.raises(FencedOff, match="claimed by another process"):
        seal(first, claim, ITEMS[0].progress, ITEMS[1:2], published)
    assert everything(migrated_url) == there
    assert published.records == []


def test_a_position_that_is_not_the_one_on_record_is_fenced_off(migrated_url: str) -> None:
    """Generation alone is not enough: the transaction must begin where the last one ended."""
    of = store(migrated_url)
    claim = claimed(of)
    seal(of, claim, claim.progress, ITEMS[:1])
    with pytest.raises(FencedOff):
        seal(of, claim, claim.progress, ITEMS[:1])


def test_of_two_processes_started_at_once_one_holds_all(migrated_url: str) -> None:
    """Partitions are claimed in one ordered statement: no two processes fence each other off half and half."""
    begins = dict.fromkeys(range(16), 0)
    start = threading.Barrier(4)
    found: list[set[int]] = []

    def claim() -> None:
        of = store(migrated_url)
        of.standing(TOPIC)
        start.wait()
        rounds = [of.claim(TOPIC, "topic-1", 16, begins) for _ in range(5)]
        found.extend({claim.generation for claim in claims.values()} for claims in rounds)
        of.close()

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(tuple, found)) == [(generation,) for generation in range(1, 21)]


@pytest.mark.parametrize(
    "cuts", [["answer"], ["request"], ["request", "answer"], ["answer", "request", "request", "answer"]]
)
def test_an_interrupted_commit_is_made_once(migrated_url: str, expected, cuts) -> None:
    """Whether a COMMIT was lost, or only its answer, the tables are as if nothing had happened."""
    with wire(migrated_url) as way:
        of = store(way.conninfo)
        claim = claimed(of)
        way.cut_commits = list(cuts)
        before = claim.progress
        for item in ITEMS:
            seal(of, claim, before, [item])
            before = item.progress
        assert way.cuts == len(cuts)
        of.close()
    assert everything(migrated_url) == expected


def test_a_connection_killed_in_the_midst_is_made_good(migrated_url: str, expected) -> None:
    """The rows of the killed transaction are gone, and written again by the next try."""
    of = store(migrated_url)
    claim = claimed(of)
    before, killed = claim.progress, 0
    for item in ITEMS:
        mine = writer(claim)

        def work(transaction, item=item, mine=mine):
            nonlocal killed
            counts = mine.write(transaction, [item], item.counts)
            if killed < 2:
                killed += 1
                with psycopg.connect(migrated_url) as other:
                    other.execute("select pg_terminate_backend(%s)", [transaction.info.backend_pid])
            return counts

        of.seal(claim, before, item.progress, work)
        before = item.progress
    assert everything(migrated_url) == expected


def test_an_outage_longer_than_its_limit_stops_with_one_message(migrated_url: str) -> None:
    """Nothing half-written, the server's words in the message, no password."""
    with wire(migrated_url) as way:
        of = store(way.conninfo, outage_max_secs=0.5)
        claim = claimed(of)
        there = everything(migrated_url)
        way.down = True
        way.cut()
        with pytest.raises(OperatorError, match="outage_max_secs") as stopped:
            seal(of, claim, claim.progress, ITEMS[:1])
        assert "Nothing is half-written" in str(stopped.value)
        assert_no_secret(migrated_url, str(stopped.value))
    assert everything(migrated_url) == there


def test_an_outage_is_survived_without_a_hand(migrated_url: str, expected, caplog) -> None:
    """The wire is down for a while; what it held up is committed once it is back, and the log says both."""
    with wire(migrated_url) as way:
        of = store(way.conninfo)
        claim = claimed(of)
        seal(of, claim, claim.progress, ITEMS[:1])
        way.down = True
        way.cut()
        threading.Timer(0.5, lambda: setattr(way, "down", False)).start()
        seal(of, claim, ITEMS[0].progress, ITEMS[1:2])
        seal(of, claim, ITEMS[1].progress, ITEMS[2:3])
        of.close()
    assert everything(migrated_url) == expected
    said = [record.getMessage() for record in caplog.records]
    assert any("Nothing is lost; trying again" in line for line in said)
    assert any("is back after" in line for line in said)


def test_a_request_to_stop_ends_an_outage(migrated_url: str, monkeypatch) -> None:
    """A process that is asked to stop does not wait for the database until its limit."""
    monkeypatch.setattr(timescale_outage, "STOP_SECS", 0.2)
    with wire(migrated_url) as way:
        of = store(way.conninfo, outage_max_secs=600)
        claim = claimed(of)
        way.down = True
        way.cut()
        threading.Timer(0.2, stopping.request).start()
        try:
            with pytest.raises(OperatorError, match="asked to stop"):
                seal(of, claim, claim.progress, ITEMS[:1])
        finally:
            stopping.forget()


def test_a_writer_that_hangs_in_its_transaction_does_not_block_a_claim_for_ever(migrated_url: str, monkeypatch) -> None:
    """The server ends the hung transaction; the claim goes through, and the hung writer is fenced off when it wakes."""
    monkeypatch.setattr(timescale_connection, "IDLE_IN_TRANSACTION_SECS", 1)
    hung, awake = threading.Event(), threading.Event()
    first, second = store(migrated_url), store(migrated_url)
    ends: list[BaseException] = []

    def hang() -> None:
        claim = claimed(first)
        try:
            first.seal(claim, claim.progress, ITEMS[0].progress, lambda _: (hung.set(), awake.wait(30), Counts())[2])
        except FencedOff as error:
            ends.append(error)

    writing = threading.Thread(target=hang)
    writing.start()
    assert hung.wait(60)
    claim = claimed(second)
    seal(second, claim, claim.progress, ITEMS[:1])
    awake.set()
    writing.join(30)
    assert len(ends) == 1
    assert rows(migrated_url, "select generation, position from progress") == [(2, ITEMS[0].progress.position)]


integers = st.integers(0, 2**63 - 1)
times = st.integers(-(10**13), 10**14)
workers = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=10)


@st.composite
def progresses(draw: st.DrawFn) -> Progress:
    start, resume, position = sorted(draw(st.tuples(integers, integers, integers)))
    return Progress(
        position=max(position, 1),
        resume=resume,
        start=start,
        closed_until=draw(st.none() | times),
        ticks=draw(st.dictionaries(workers, times, max_size=3)),
        judged=draw(st.lists(st.builds(Judged, integers, integers, integers), max_size=3)),
        anchor=draw(st.none() | st.builds(Anchor, integers, times, st.integers(0, 2**32 - 1))),
    )


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(progresses())
def test_progress_is_read_as_it_was_written(migrated_url: str, progress: Progress) -> None:
    """Every field comes back as it was, far times and odd names included."""
    with psycopg.connect(migrated_url) as connection:
        connection.execute("truncate progress, ledger")
    of = store(migrated_url)
    claim = claimed(of, begin=0)
    of.seal(claim, claim.progress, replace(progress, start=0), lambda _: Counts())
    again = claimed(of).progress
    assert again == replace(progress, start=claim.progress.start)
    of.close()
