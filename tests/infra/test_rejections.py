"""Dead letters counted by device and minute, each once: what a gap in the minutes may be due to."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from connectors import kafka_client, kafka_topics
from connectors.kafka import KafkaLog
from connectors.kafka_sink import Publisher
from dataflows.decoding.arrivals import ArrivalsDecoder
from dataflows.decoding.dead_letter import dead_letter_from_log
from infra import maintain
from infra.letters import noting
from infra.letters.noting import note
from schemas.arrivals import Arrivals
from schemas.log import Refused
from schemas.record import Record
from schemas.telemetry_pb2 import Telemetry
from tests.topology import Topology, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

MINUTE = 60_000
START = time.time_ns() // 1_000_000 // MINUTE * MINUTE - 60 * MINUTE  # Kafka deletes letters that are a week old
ROWS = (
    "select (extract(epoch from minute) * 1000)::bigint, device_id, reason, letters from rejections "
    "order by device_id, minute, reason"
)


@pytest.fixture
def place(tmp_path: Path, kafka_bootstrap: str, database_url: str) -> Iterator[Topology]:
    with topology(tmp_path, kafka_bootstrap, database_url, "mqtt://127.0.0.1:1") as made:
        yield made


def refused(place: Topology, device: str, payload: bytes, at_ms: int) -> list[Record]:
    """The letter that ingest writes of a payload, at a time of ours."""
    settings = place.settings
    decoder = ArrivalsDecoder(settings.mqtt, settings.decoding, settings.kafka, settings.windows)
    topic = place.topic.replace("{device_id}", device)
    records = decoder.decode(Arrivals("w", [topic], [payload], [None], [at_ms], [False])).records
    letters = [one for one in records if one.topic == settings.kafka.dead_letter_topic]
    assert len(letters) == 1
    return [one._replace(timestamp_ms=at_ms) for one in letters]


def of_the_log(place: Topology, device: str, at_ms: int) -> Record:
    """The letter of a dataflow that found a device's clock wrong."""
    payload = Telemetry(device_id=device, ts=1, metrics={"a": 1.0}).SerializeToString()
    found = Refused(7, at_ms, "timestamp_too_old", "", payload)
    kafka = place.settings.kafka
    record = dead_letter_from_log(kafka.dead_letter_topic, found, kafka.events_topic, 0, 1_000)
    return record._replace(timestamp_ms=at_ms)


def publish(place: Topology, *records: Record) -> None:
    publisher = Publisher(place.settings.kafka)
    publisher.send_all(list(records))
    publisher.flush()


def some(place: Topology) -> list[Record]:
    return [
        *refused(place, "boiler-1", b"{", START + 1),
        *refused(place, "boiler-1", b"{", START + MINUTE - 1),
        *refused(place, "boiler-1", b'{"ts": %d, "metrics": {"a": 1, "b": "hot"}}' % (START + 2), START + 2),
        *refused(place, "boiler-1", b"[", START + MINUTE),
        *refused(place, "\u00e9\U0001f4a1", b"{", START + 3),
        of_the_log(place, "boiler-2", START + 4),
        *(one._replace(headers=one.headers[1:]) for one in refused(place, "boiler-3", b"{", START)),  # of no reason
        of_the_log(place, "nul\0", START),
    ]


EXPECTED = [
    (START, "boiler-1", "not_a_number", 1),
    (START, "boiler-1", "not_json", 2),
    (START + MINUTE, "boiler-1", "not_json", 1),
    (START, "boiler-2", "timestamp_too_old", 1),
    (START, "\u00e9\U0001f4a1", "not_json", 1),
]


def twice(rows: list[tuple[int, str, str, int]]) -> list[tuple[int, str, str, int]]:
    return [(*key, 2 * letters) for *key, letters in rows]  # type: ignore[misc]


def test_each_letter_is_counted_once(place: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, in parts, by several at once, killed before a commit, and of a topic that was made again."""
    assert note(place.settings) == 0
    publish(place, *some(place))
    assert note(place.settings) == len(some(place))
    assert place.ask(ROWS) == EXPECTED
    assert note(place.settings) == 0

    publish(place, *some(place))
    monkeypatch.setattr(noting, "AT_ONCE", 3)
    with monkeypatch.context() as patch:
        patch.setattr(noting, "_COUNT", "select 1 / 0")
        with pytest.raises(psycopg.Error):
            note(place.settings)
    assert place.ask(ROWS) == EXPECTED
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(note, [place.settings] * 4))
    note(place.settings)
    assert place.ask(ROWS) == twice(EXPECTED)

    topic, admin = place.settings.kafka.dead_letter_topic, kafka_client.admin(place.settings.kafka)
    before = KafkaLog(place.settings.kafka, topic, "before").identity()
    admin.delete_topics([topic])[topic].result(30)
    wait_for(lambda: topic not in admin.list_topics(timeout=30).topics, "the topic is gone")
    kafka_topics.ensure(place.settings)
    assert KafkaLog(place.settings.kafka, topic, "after").identity() != before
    publish(place, *some(place), *some(place))
    note(place.settings)
    assert place.ask(ROWS) == twice(twice(EXPECTED))


def test_maintain_counts_them_where_it_is_asked_to(place: Topology, capsys: pytest.CaptureFixture[str]) -> None:
    """And drops them with the minutes; a writer may count."""
    publish(place, *some(place))
    settings = ["--settings", str(place.settings_path)]
    assert maintain.main(settings) == 0
    assert place.ask(ROWS) == []
    assert maintain.main([*settings, "--letters"]) == 0
    assert "counted 8 dead letters" in capsys.readouterr().out
    assert len(place.ask(ROWS)) == len(EXPECTED)
    assert place.ask("select keep, columnstore_after from time_tables where name = 'rejections'") == place.ask(
        "select make_interval(days => 400), null::interval"
    )
    with psycopg.connect(place.settings.database.conninfo) as connection:
        for table in ("rejections", "letters_noted"):
            allowed = sql.SQL("select has_table_privilege('ionwax_writer', {}, 'insert, update')").format(table)
            assert connection.execute(allowed).fetchone() == (True,)
