"""Going on where a log is not as it is on record: what is given up is written down, and explained by verify."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from connectors import kafka_client, kafka_topics
from connectors.checkpoint import Standing
from connectors.kafka import KafkaLog
from connectors.kafka_sink import Publisher
from connectors.resuming import ResumingSource
from connectors.stopping import EXIT_OPERATOR
from connectors.timescale import TimescaleStore
from dataflows.decoding.ticks import tick_records
from infra.forfeit.__main__ import begin_anew, forfeit
from infra.forfeit.decision import At, Decision, Found, Undecided, Wrong, decide
from infra.verify.__main__ import check
from schemas.arrivals import Tick
from schemas.errors import OperatorError
from schemas.progress import Anchor, Progress
from schemas.record import Record
from schemas.telemetry_pb2 import Telemetry
from tests.topology import DEADLINE_SECS, Topology, topology, wait_for

ANCHOR = Anchor(99, 1_000, 7)
STANDING = Standing(Progress(position=100, resume=80, start=10, anchor=ANCHOR), "topic-1", 3)


def found(
    topic_id: str = "topic-1", low: int = 0, high: int = 120, partitions: int = 3, anchor: Anchor | None = ANCHOR
) -> Found:
    return Found(topic_id, low, high, partitions, anchor)


@pytest.mark.parametrize(
    ("now", "at", "expected"),
    [
        (found(), None, None),
        (found(low=80), "beginning", None),
        (found(low=90), None, Decision(Wrong.DELETED, 100, 90, True)),
        (found(low=110, anchor=None), "beginning", Decision(Wrong.DELETED, 110, 110, True)),
        (found(high=90, anchor=None), None, Decision(Wrong.ENDS_EARLY, 90, 80, True)),
        (found(high=50, anchor=None), None, Decision(Wrong.ENDS_EARLY, 50, 50, True)),
        (found(partitions=4), None, Decision(Wrong.GROWN, 100, 80, True)),
        (found("topic-2", low=3), "beginning", Decision(Wrong.OTHER_TOPIC, 3, 3, False)),
        (found("topic-2"), "end", Decision(Wrong.OTHER_TOPIC, 120, 120, False)),
        (found("topic-2"), "position", Decision(Wrong.OTHER_TOPIC, 100, 80, False)),
        (found("topic-2", high=60), "position", Decision(Wrong.OTHER_TOPIC, 60, 60, False)),
        (found(anchor=Anchor(99, 1_000, 8)), "end", Decision(Wrong.OTHER_RECORDS, 120, 120, False)),
    ],
)  # fmt: skip
def test_only_what_the_log_no_longer_has_is_given_up(now: Found, at: At | None, expected: Decision | None) -> None:
    """The position moves no further than it must, and never below what the log has."""
    assert decide(STANDING, now, at) == expected


@pytest.mark.parametrize("now", [found("topic-2"), found(anchor=None)])
def test_of_another_log_a_person_has_to_say_what_its_records_are(now: Found) -> None:
    """New, the same, or of no interest: nothing tells, so nothing is guessed."""
    with pytest.raises(Undecided):
        decide(STANDING, now, None)


@pytest.fixture
def flows(tmp_path: Path, kafka_bootstrap: str, database_url: str) -> Iterator[Topology]:
    with topology(tmp_path, kafka_bootstrap, database_url, "mqtt://127.0.0.1:1") as made:
        yield made


def append(flows: Topology, number: int, minute: int, partitions: int = 3) -> None:
    """As many records of a minute to each partition, and no tick: the minute is open."""
    publisher = Publisher(flows.settings.kafka)
    for partition in range(partitions):
        for index in range(number):
            ts = minute * 60_000 + index
            value = Telemetry(device_id=f"d-{partition}", ts=ts, metrics={"a": index}).SerializeToString()
            publisher.send(Record(flows.settings.kafka.events_topic, value, b"d", partition=partition, timestamp_ms=ts))
    publisher.flush()


def tick(flows: Topology, ts: int, partitions: int = 3) -> None:
    publisher = Publisher(flows.settings.kafka)
    publisher.send_all(
        [*tick_records(Tick(flows.settings.mqtt.workers[0], ts), flows.settings.kafka.events_topic, partitions)]
    )
    publisher.flush()


def refused(flows: Topology) -> str:
    """What a start says."""
    settings = flows.settings
    store = TimescaleStore(settings.database, settings.flow.name, settings.output.table, "windows of 60 s")
    source = ResumingSource(KafkaLog(settings.kafka, settings.kafka.events_topic, "refused"), store)
    parts = [source.build_part("log", name, None) for name in source.list_parts()]
    try:
        with pytest.raises(OperatorError) as error:
            parts[0].next_batch()
    finally:
        store.close()
    return str(error.value)


def run(flows: Topology, readings: int) -> None:
    """Let the flow account for all there is, and stop."""
    flows.start("minute_rollups")
    wait_for(
        lambda: flows.ask("select sum(readings) from ledger") == [(readings,)], f"{readings} readings", flows.state
    )
    assert flows.stop("minute_rollups") == 0


def explained(flows: Topology) -> None:
    assert [] == list(check(flows.settings))


@pytest.mark.embedded
@pytest.mark.contract
def test_a_flow_goes_on_and_verify_explains_what_was_given_up(flows: Topology) -> None:
    """Retention, a topic made again, more partitions, progress gone: each is refused with the command that goes on."""
    minute = time.time_ns() // 60_000_000_000 - 60
    append(flows, 10, minute)
    run(flows, 30)
    after_retention(flows, minute)
    explained(flows)
    after_it_was_made_again(flows, minute + 20)
    explained(flows)
    the_rest_is_compared(flows)
    after_it_grew(flows)
    explained(flows)
    assert forfeit(flows.settings, None, yes=True) == ({}, {}), "all is as it is on record"
    after_progress_is_gone(flows)
    explained(flows)


def after_retention(flows: Topology, minute: int) -> None:
    """Four of ten readings of an open minute go from one partition."""
    topic = flows.settings.kafka.events_topic
    place = TopicPartition(topic, 0, 4)
    admin = kafka_client.admin(flows.settings.kafka)
    admin.delete_records([place])[place].result(30)
    said = refused(flows)
    assert "retention deleted 4 offsets" in said
    assert f"./justw forfeit --settings FILE --flow minute_rollups --topic {topic}." in said
    decisions, given = forfeit(flows.settings, None, yes=False)
    assert (list(decisions), given[0]) == ([0], (0, 4))
    assert "retention deleted" in refused(flows), "nothing was changed yet"
    forfeit(flows.settings, None, yes=True)
    append(flows, 5, minute + 1)
    tick(flows, (minute + 10) * 60_000)
    run(flows, 45)
    rows = "select device_id, count from rollups_1m order by bucket, device_id"
    assert flows.ask(rows) == [("d-0", 6), ("d-1", 10), ("d-2", 10), ("d-0", 5), ("d-1", 5), ("d-2", 5)]


def after_it_was_made_again(flows: Topology, minute: int) -> None:
    """The new log's 21 readings are beside the 41 there were."""
    topic = flows.settings.kafka.events_topic
    admin = kafka_client.admin(flows.settings.kafka)
    admin.delete_topics([topic])[topic].result(30)
    wait_for(lambda: not_there(flows), "the topic is gone")
    kafka_topics.ensure(flows.settings)
    append(flows, 7, minute)
    assert "--at beginning" in refused(flows)
    with pytest.raises(OperatorError, match="give --at beginning"):
        forfeit(flows.settings, None, yes=True)
    forfeit(flows.settings, "beginning", yes=True)
    tick(flows, (minute + 10) * 60_000)
    run(flows, 45 + 21)
    assert flows.ask("select sum(count) from rollups_1m") == [(41 + 21,)]


def the_rest_is_compared(flows: Topology) -> None:
    """A deep check knows by itself from when on the new log explains all, and finds what is wrong from then on."""
    later = time.time_ns() // 60_000_000_000 + 5  # records may be stamped up to an hour ahead
    append(flows, 3, later)
    tick(flows, (later + 5) * 60_000)
    run(flows, 45 + 21 + 9)
    assert [] == list(check(flows.settings, deep=True))
    wrong = f"update rollups_1m set last = last + 1 where device_id = 'd-1' and bucket = to_timestamp({later * 60})"
    with psycopg.connect(flows.settings.database.conninfo) as connection:
        assert connection.execute(wrong.encode()).rowcount == 1
    (found,) = check(flows.settings, deep=True)
    assert "d-1 a" in str(found)
    with psycopg.connect(flows.settings.database.conninfo) as connection:
        connection.execute(wrong.replace("last + 1", "last - 1").encode())


def after_it_grew(flows: Topology) -> None:
    """A fourth partition begins at its first offset."""
    kafka, topic = flows.settings.kafka, flows.settings.kafka.events_topic
    admin = kafka_client.admin(kafka)
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    wait_for(lambda: len(KafkaLog(kafka, topic, "grown").partitions()) == 4, "there are four partitions")
    assert "had 3 partitions" in refused(flows)
    forfeit(flows.settings, None, yes=True)
    assert flows.ask("select count(*), min(partitions) from progress") == [(4, 4)]


def after_progress_is_gone(flows: Topology) -> None:
    """The rows are taken over as they are."""
    assert begin_anew(flows.settings, "end", yes=True) is None, "there is progress"
    with psycopg.connect(flows.settings.database.conninfo) as connection:
        connection.execute("delete from progress where true")
    assert "./justw forfeit" in refused(flows)
    with pytest.raises(OperatorError, match="give --at end"):
        begin_anew(flows.settings, None, yes=True)
    begin_anew(flows.settings, "end", yes=True)


@pytest.mark.embedded
@pytest.mark.contract
def test_an_archive_whose_progress_is_gone_goes_on_behind_its_last_record(flows: Topology) -> None:
    """Its rows have their offsets: with what came meanwhile every reading is there once, and verify explains it."""
    settings, minute = flows.settings, time.time_ns() // 60_000_000_000 - 60
    append(flows, 10, minute)
    archive(flows, 30)
    with psycopg.connect(settings.database.conninfo) as connection:
        connection.execute("delete from progress where flow = 'raw_archive'")
        connection.execute("delete from raw_telemetry where partition = 2")  # nothing is known of it, not even rows
    append(flows, 5, minute + 1)
    flows.start("raw_archive")
    assert flows.running.pop("raw_archive").wait(DEADLINE_SECS) == EXIT_OPERATOR
    command = f"./justw forfeit --settings FILE --flow raw_archive --topic {settings.kafka.events_topic} ("
    assert command in flows.log("raw_archive").read_text()
    with pytest.raises(OperatorError, match="give --at position"):
        begin_anew(settings, None, yes=True, flow="raw_archive")
    assert begin_anew(settings, "position", yes=True, flow="raw_archive") == {0: 10, 1: 10, 2: 0}
    archive(flows, 45)
    rows = 'select partition, count(*), count(distinct "offset") from raw_telemetry group by 1 order by 1'
    assert flows.ask(rows) == [(0, 15, 15), (1, 15, 15), (2, 15, 15)]
    run(flows, 2 * 45)
    explained(flows)


def archive(flows: Topology, readings: int) -> None:
    """Let the archive account for all there is, and stop."""
    flows.start("raw_archive")
    counted = "select sum(readings) from ledger where flow = 'raw_archive'"
    wait_for(lambda: flows.ask(counted) == [(readings,)], f"{readings} readings", flows.state)
    assert flows.stop("raw_archive") == 0


@pytest.mark.embedded
@pytest.mark.contract
def test_an_archive_does_not_go_on_in_a_log_that_ends_before_its_rows(flows: Topology) -> None:
    """It is another one, whatever its records are: nothing is guessed, and nothing changed."""
    with psycopg.connect(flows.settings.database.conninfo) as connection:
        connection.execute("insert into raw_telemetry values (now(), 'd', 'a', 1, 0, 7)")
    with pytest.raises(OperatorError, match="ends at offset 0, and table raw_telemetry holds offset 7"):
        begin_anew(flows.settings, "position", yes=True, flow="raw_archive")
    assert flows.ask("select count(*) from progress") == [(0,)]


def not_there(flows: Topology) -> bool:
    try:
        KafkaLog(flows.settings.kafka, flows.settings.kafka.events_topic, "gone").partitions()
    except OperatorError:
        return True
    return False
