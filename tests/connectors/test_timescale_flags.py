"""The tables of flags: fenced, written absolute, and a state that progress can be resumed from."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from connectors import timescale_flags
from connectors.timescale import TimescaleStore
from connectors.timescale_flags import FlagWriter, check_tables, recall
from schemas.errors import FencedOff, OperatorError
from schemas.flag_records import Alert
from schemas.flags import Episode, Flag, Judged, Snapshot
from schemas.log import Refused
from schemas.progress import Claim, Counts
from schemas.record import Record
from schemas.settings import DatabaseSettings, FlagSettings
from tests.connectors.cut_wire import Cut, wire
from tests.connectors.timescale_tables import Kept, rows

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

MINUTE = 60_000
TOPIC = "aggregates.minute"
NOW = time.time_ns() // 1_000_000 // MINUTE * MINUTE
TABLES = ("anomaly_flags", "anomaly_episodes", "flag_states", "ledger")


class Pager:
    """Who is told: keeps what was acknowledged."""

    def __init__(self) -> None:
        self.told: list[Alert] = []

    def send(self, alerts: Sequence[Alert]) -> None:
        self.told += alerts


def flag(bucket: int, device: str = "é💡", score: float = 0.1 + 0.2, revision: int = 0) -> Flag:
    return Flag(bucket, device, "t", "hot", "critical", score, 91.5, None, -1e-300, 90.0, f"{device}/1", "3", revision)


def judged(claim: Claim, position: int, **what: object) -> Judged:
    progress = replace(claim.progress, position=position, closed_until=NOW)
    given = {"flags": (), "episodes": (), "refused": (), "snapshot": None} | what
    snapshot = given["snapshot"]
    if isinstance(snapshot, Snapshot):
        progress = replace(progress, resume=snapshot.resume)
    counts = Counts(messages=position - claim.progress.position)
    return Judged(claim.partition, counts=counts, progress=progress, **given)  # type: ignore[arg-type]


def store(conninfo: str) -> TimescaleStore:
    settings = DatabaseSettings(conninfo=conninfo, outage_max_secs=30.0)
    return TimescaleStore(settings, "anomaly_flags", "anomaly_flags", "flags of windows of 60 s")


def claimed(of: TimescaleStore) -> Claim:
    return of.claim(TOPIC, "topic-1", 4, {2: 0})[2]


def seal(
    of: TimescaleStore, claim: Claim, item: Judged, pager: Pager | None = None, before: Judged | None = None
) -> Kept:
    published = Kept()

    def dead_letter(_: Claim, refused: Refused) -> Record:
        return Record("raw.dead_letter", refused.payload)

    writer = FlagWriter(claim, FlagSettings(), MINUTE, published, pager, dead_letter)

    def work(transaction: timescale_flags.Connection) -> Counts:
        counts = writer.write(transaction, [item], item.counts)
        writer.flush()
        return counts

    of.seal(claim, before.progress if before else claim.progress, item.progress, work)
    return published


def everything(conninfo: str) -> dict[str, list[tuple[object, ...]]]:
    return {table: rows(conninfo, f"select * from {table}") for table in TABLES}


def an_item(claim: Claim) -> Judged:
    """An episode that opens, goes on and is revised; one that opens and closes; a dead letter; a state."""
    first, second = flag(NOW - 3 * MINUTE), flag(NOW - 2 * MINUTE, "a")
    return judged(
        claim,
        9,
        flags=[first, flag(NOW - 2 * MINUTE), second, first._replace(score=0.0, value=3.0, revision=2)],
        episodes=[
            Episode("é💡/1", first, peak=0.5),
            Episode("a/1", second, peak=0.5),
            Episode("a/1", second, NOW, "calm", 0.75),
        ],
        refused=[Refused(4, 0, "bad_shape", "", b"poison")],
        snapshot=Snapshot(7, {"closed_until": NOW}, {"x": np.arange(5.0)}),
    )


def test_flags_and_episodes_are_rows_and_the_last_word_counts(migrated_url: str) -> None:
    """To the bit; one row a subject, minute and rule; an episode is completed by its close."""
    of = store(migrated_url)
    claim = claimed(of)
    pager = Pager()
    published = seal(of, claim, an_item(claim), pager)
    opened = f"to_timestamp({(NOW - 3 * MINUTE) // 1000})"
    query = f"select device_id, bucket = {opened}, score, value, lower, revision, partition from anomaly_flags"
    assert [
        ("a", False, (0.1 + 0.2).hex(), (91.5).hex(), (-1e-300).hex(), 0, 2),
        ("é💡", False, (0.1 + 0.2).hex(), (91.5).hex(), (-1e-300).hex(), 0, 2),
        ("é💡", True, (0.0).hex(), (3.0).hex(), (-1e-300).hex(), 2, 2),
    ] == rows(migrated_url, query)
    assert [("a/1", "calm", (0.75).hex()), ("é💡/1", None, (0.5).hex())] == rows(
        migrated_url, "select episode_id, cause, peak from anomaly_episodes"
    )
    assert published.durable == len(published.records) == 6  # four flags, a close, a dead letter
    assert len(pager.told) == 3


def test_who_is_fenced_off_writes_nothing(migrated_url: str) -> None:
    """A second process claims; the first one's next commit leaves no row in any table, and pages nobody."""
    one, other = store(migrated_url), store(migrated_url)
    claim = claimed(one)
    claimed(other)
    before = everything(migrated_url)
    pager = Pager()
    with pytest.raises(FencedOff):
        seal(one, claim, an_item(claim), pager)
    assert before == everything(migrated_url)
    assert not pager.told


@pytest.mark.parametrize("cuts", [["request"], ["answer"], ["request", "answer"]])
def test_a_commit_that_is_interrupted_leaves_what_an_undisturbed_one_does(migrated_url: str, cuts: list[Cut]) -> None:
    """Whether the COMMIT or its answer is lost: the same rows, each alert at least once, by the same keys."""
    with wire(migrated_url) as way:
        of = store(way.conninfo)
        claim = claimed(of)
        way.cut_commits += cuts
        pager = Pager()
        seal(of, claim, an_item(claim), pager)
        assert way.cuts == len(cuts)
    found = everything(migrated_url)
    with psycopg.connect(migrated_url) as connection:
        connection.execute("; ".join(f"delete from {table}" for table in (*TABLES, "progress")).encode())
    of = store(migrated_url)
    again = Pager()
    claim = claimed(of)
    seal(of, claim, an_item(claim), again)
    assert everything(migrated_url) == found
    assert {alert.payload for alert in pager.told} == {alert.payload for alert in again.told}


def test_progress_resumes_from_the_state_on_record(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest snapshot, in however many pieces, and the episodes that stand open; a new partition has neither."""
    monkeypatch.setattr(timescale_flags, "PIECE_BYTES", 50)
    of = store(migrated_url)
    claim = claimed(of)
    assert recall(migrated_url, claim) == (None, {})
    item = an_item(claim)
    seal(of, claim, item)
    later = judged(claim, 12, snapshot=Snapshot(11, {"closed_until": NOW}, {"x": np.arange(9.0)}))
    seal(of, claim, later, before=item)
    again = claimed(of)
    snapshot, told = recall(migrated_url, again)
    assert snapshot is not None
    assert (11, again.progress.resume) == (snapshot.resume, 11)
    assert snapshot.arrays["x"].tolist() == list(range(9))
    assert [("é💡/1", NOW - 3 * MINUTE, None)] == [(e.episode_id, e.flag.bucket, e.closed) for e in told.values()]
    ((pieces,),) = rows(migrated_url, "select count(*) from flag_states")
    assert pieces > 1


def test_a_state_that_does_not_fit_progress_is_refused(migrated_url: str) -> None:
    """Restored or deleted by hand: one message, before anything is judged from it."""
    of = store(migrated_url)
    claim = claimed(of)
    seal(of, claim, an_item(claim))
    for tampering in ("update flag_states set resume = 5", "delete from flag_states"):
        with psycopg.connect(migrated_url) as connection:
            connection.execute(tampering.encode())
        with pytest.raises(OperatorError, match="does not resume from the state"):
            recall(migrated_url, claimed(of))


def test_old_anomalies_are_written_and_page_nobody(migrated_url: str) -> None:
    """A log of last week that is read for the first time; a close of today is told, though its opening is old."""
    week = 7 * 24 * 60 * MINUTE
    of = store(migrated_url)
    claim = claimed(of)
    old = flag(NOW - week)
    pager = Pager()
    episodes = [
        Episode("é💡/1", old),
        Episode("b/1", old, NOW - week + MINUTE, "calm"),
        Episode("c/1", old, NOW, "calm"),
    ]
    seal(of, claim, judged(claim, 3, flags=[old], episodes=episodes), pager)
    assert [NOW] == [alert.at_ms for alert in pager.told]
    ((count,),) = rows(migrated_url, "select count(*) from anomaly_episodes")
    assert count == 3


def test_a_missing_table_is_one_message(database_url: str) -> None:
    """With what to run."""
    with pytest.raises(OperatorError, match=r"\./justw migrate"):
        check_tables(database_url, "anomaly_flags")
