"""What a resuming source refuses before it claims, and how it behaves while nothing comes."""

from datetime import UTC, datetime

import psycopg
import pytest

from connectors import stopping
from connectors.resuming import IDLE_MS_MAX, ResumingSource
from schemas.errors import OperatorError
from schemas.log import LogBatch
from schemas.progress import Claim
from tests.connectors import outcomes as drawn
from tests.connectors.kept_log import KeptLog
from tests.connectors.outcomes import Reading, Step
from tests.connectors.timescale_tables import rows, seal, store

pytestmark = pytest.mark.embedded


def first_items(source: ResumingSource) -> dict[str, Claim]:
    """Build every partition as the engine does, and take the first item of each."""
    parts = {name: source.build_part("log", name, None) for name in source.list_parts()}
    return {name: part.next_batch()[0] for name, part in parts.items()}


@pytest.fixture
def log() -> KeptLog:
    return KeptLog("raw.events", [20, 20])


@pytest.fixture
def begun_url(migrated_url: str, log: KeptLog) -> str:
    """A database whose flow has accounted for offsets 0 to 9 of partition 0, and nothing of partition 1."""
    of = store(migrated_url)
    claim = first_items(ResumingSource(log, of))["0"]
    reading = Reading(4, "boiler-7", "temperature", drawn.FIRST_BUCKET, 21.5, False)
    (item,) = drawn.outcomes([Step(10, drawn.FIRST_BUCKET, (reading,), (), 0)])
    object.__setattr__(item.progress, "anchor", log.anchor(0, 9))
    object.__setattr__(item.progress, "resume", 8)
    seal(of, claim, claim.progress, [item])
    of.close()
    return migrated_url


def generations(conninfo: str) -> list[tuple[object, ...]]:
    return rows(conninfo, "select partition, generation from progress")


def test_it_resumes_where_a_window_is_still_open(begun_url: str, log: KeptLog) -> None:
    """The claim says what is accounted for; reading begins at ``resume``, below it."""
    source = ResumingSource(log, store(begun_url))
    part = source.build_part("log", source.list_parts()[0], None)
    (claim,) = part.next_batch()
    assert (claim.progress.position, claim.progress.resume, claim.generation) == (10, 8, 2)
    (batch,) = part.next_batch()
    assert (batch.start, batch.end) == (8, 11)


def test_a_partition_begins_at_either_end_of_the_log(migrated_url: str, log: KeptLog) -> None:
    """Only without progress: ``earliest`` is the first offset the log still has, ``latest`` the next one."""
    log.low = [3, 3]
    earliest = first_items(ResumingSource(log, store(migrated_url, flow="a", output="late_readings"), start="earliest"))
    latest = first_items(ResumingSource(log, store(migrated_url, flow="b"), start="latest"))
    assert [claim.progress.start for claim in earliest.values()] == [3, 3]
    assert [claim.progress.start for claim in latest.values()] == [20, 20]


CHANGED = {
    "deleted and made again": lambda log: setattr(log, "topic_id", "topic-2"),
    "another cluster": lambda log: setattr(log, "salt", 1),
    "ends at offset 9": lambda log: log.lengths.__setitem__(0, 9),
    "retention deleted 1 offsets": lambda log: log.low.__setitem__(0, 9),
    "had 2 partitions": lambda log: (log.lengths.append(5), log.low.append(0)),
}


@pytest.mark.parametrize("said", CHANGED)
def test_a_log_that_is_not_the_one_on_record_is_refused_before_anything_is_claimed(
    begun_url: str, log: KeptLog, said: str
) -> None:
    """One message that says what happened; the process that runs meanwhile is not fenced off."""
    before = generations(begun_url)
    CHANGED[said](log)
    with pytest.raises(OperatorError, match=said) as refused:
        first_items(ResumingSource(log, store(begun_url)))
    assert "Nothing was claimed" in str(refused.value)
    assert "./justw forfeit --settings FILE --flow minute_rollups --topic raw.events" in str(refused.value)
    assert generations(begun_url) == before


def test_a_log_that_is_made_again_under_the_flow_is_refused(migrated_url: str, log: KeptLog) -> None:
    """The sink asks before each commit: Kafka reads on in the new topic without a word."""
    source = ResumingSource(log, store(migrated_url))
    claim = first_items(source)["0"]
    source.check(claim, 0.0)
    log.topic_id = "topic-2"
    with pytest.raises(OperatorError, match=r"made again while flow minute_rollups read it.* --at beginning"):
        source.check(claim, 0.0)


def test_a_record_that_retention_deleted_is_not_missed(begun_url: str, log: KeptLog) -> None:
    """Where nothing is open and the anchor's own record has gone, there is nothing to compare and nothing lost."""
    with psycopg.connect(begun_url) as connection:
        connection.execute("update progress set resume = position where partition = 0")
    log.low = [10, 0]
    assert first_items(ResumingSource(log, store(begun_url)))["0"].generation == 2


@pytest.mark.parametrize(("share", "parts"), [("0/1", "0 1 2 3 4"), ("0/2", "0 2 4"), ("1/2", "1 3"), ("4/5", "4")])
def test_a_share_takes_every_nth_partition(share: str, parts: str) -> None:
    """Independent processes side by side: their shares are disjoint and leave nothing out."""
    source = ResumingSource(KeptLog("raw.events", [0] * 5), store("host=127.0.0.1"), share=share)
    assert source.list_parts() == parts.split()


@pytest.mark.parametrize("share", ["2/2", "0", "a/b", "0/0", "-1/2", "1/2/3", ""])
def test_a_share_that_means_nothing_is_refused(share: str) -> None:
    """With the way to write one in the message."""
    with pytest.raises(OperatorError, match='like "0/2"'):
        ResumingSource(KeptLog("raw.events", [0]), store("host=127.0.0.1"), share=share)


def test_a_share_without_a_partition_is_refused() -> None:
    """More processes than partitions: one would do nothing and say nothing."""
    with pytest.raises(OperatorError, match="has 2 partitions: none for share 2/3"):
        ResumingSource(KeptLog("raw.events", [0, 0]), store("host=127.0.0.1"), share="2/3").list_parts()


def test_a_start_that_means_nothing_is_refused() -> None:
    """Names the two there are."""
    with pytest.raises(OperatorError, match='"earliest" or "latest"'):
        ResumingSource(KeptLog("raw.events", [0]), store("host=127.0.0.1"), start="newest")


def test_at_rest_it_asks_less_often_and_hands_on_one_empty_batch(migrated_url: str) -> None:
    """The empty batch carries what the sink could let wait; after it there is silence until something comes."""
    log = KeptLog("raw.events", [2])
    part = ResumingSource(log, store(migrated_url), settle_secs=[0.0]).build_part("log", "0", None)
    assert [part.next_batch()[0].__class__, part.next_batch()[0].__class__] == [Claim, LogBatch]
    assert part.next_awake() is None
    (empty,) = part.next_batch()
    assert (empty.start, empty.end, list(empty.offsets), empty.anchor) == (2, 2, [], None)
    for _ in range(10):
        assert part.next_batch() == []
    wait = part.next_awake() - datetime.now(UTC)
    assert wait.total_seconds() <= IDLE_MS_MAX / 1000
    log.lengths[0] = 3
    assert part.next_batch()[0].end == 3
    assert part.next_awake() is None


def test_each_time_to_settle_has_its_empty_batch(migrated_url: str) -> None:
    """Rows may wait for a moment, progress for seconds: both are carried, and neither twice."""
    part = ResumingSource(KeptLog("raw.events", [2]), store(migrated_url), settle_secs=[0.0, 0.0, 3600.0]).build_part(
        "log", "0", None
    )
    part.next_batch()
    assert [[(one.start, one.end) for one in part.next_batch()] for _ in range(5)] == [
        [(0, 2)],
        [(2, 2)],
        [(2, 2)],
        [],
        [],
    ]


def test_it_ends_its_input_when_asked_to_stop(migrated_url: str) -> None:
    """So that the last epoch is written like any other."""
    part = ResumingSource(KeptLog("raw.events", [2]), store(migrated_url)).build_part("log", "0", None)
    part.next_batch()
    stopping.request()
    try:
        with pytest.raises(StopIteration):
            part.next_batch()
    finally:
        stopping.forget()
