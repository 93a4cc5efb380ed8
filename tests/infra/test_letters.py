"""Dead letters: listed safely, sent again once, and accounted for like any other reading."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka_sink import Publisher
from dataflows.decoding.arrivals import ArrivalsDecoder
from dataflows.decoding.ticks import tick_records
from dataflows.decoding.topics import compile_topic
from infra.letters import __main__ as listing
from infra.letters.letter import Letter, headers_of, letters
from infra.letters.redrive import FROM, SENT, redrive
from infra.letters.sent import SentAgain
from infra.verify.__main__ import check
from schemas.arrivals import Arrivals, Tick
from schemas.record import Record
from schemas.rollup_pb2 import Rollup
from schemas.settings import DecodingSettings, Settings
from schemas.telemetry_pb2 import Telemetry
from tests.topology import Topology, topology, wait_for

ACME = "application/vnd.acme+json"
NOW = time.time_ns() // 1_000_000
MINUTES = 120_000  # all of it is two minutes old: its windows close with the first tick

# What devices sent: content type, payload, the reason it was refused for, and what becomes of it when it is sent again.
SENDINGS: list[tuple[str | None, str, str | None, str]] = [
    (None, '{"ts": %d, "metrics": {"a": 1}}', None, ""),
    (None, '{"ts": %d, "metrics": {"a": 1, "b": 2, "c": 3}}', "too_many_metrics", SENT),
    (ACME, '{"t": %d, "d": {"a": 4}}', "unknown_schema", SENT),
    (None, '{"ts": %d, "metrics": {"a": 5, "b": "x"}}', "not_a_number", "the log has all that is good of it"),
    (None, '[{"ts": %d, "metrics": {"a": 6}}, {"ts": 1, "metrics": {"a": 7}}]', "timestamp_too_old", "the log has"),
    (None, '{"ts": %d, "metrics": ]\x1b[31m', "not_json", "not_json"),
    (None, '{"ts": %d, "metrics": {"a": 8}' + " " * 5_000 + "}", "too_large", "only the first"),
]
FORMATS = {ACME: {"ts": "$.t", "metrics": "$.d", "device_id": "$.i"}}
WAS = DecodingSettings(metrics_max=2, payload_bytes_max=4_000)
IS = DecodingSettings(metrics_max=100, formats=FORMATS)


def changed(settings: Settings, decoding: DecodingSettings) -> Settings:
    sections = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return Settings(**{**sections, "decoding": decoding})


@pytest.fixture
def flows(tmp_path: Path, kafka_bootstrap: str, database_url: str) -> Iterator[Topology]:
    """What devices sent is in the log, or in the dead letter, by the settings as they were; minutes are over."""
    decoding: dict[str, Any] = {"metrics_max": 100, "formats": FORMATS}
    with topology(tmp_path, kafka_bootstrap, database_url, "mqtt://127.0.0.1:1", decoding=decoding) as made:
        was = changed(made.settings, WAS)
        decoder = ArrivalsDecoder(was.mqtt, was.decoding, was.kafka, was.windows)
        records: list[Record] = []
        for number, (content_type, payload, reason, _) in enumerate(SENDINGS):
            at = NOW - MINUTES + number
            body = payload.replace("%d", str(at)).encode()
            topic = made.topic.replace("{device_id}", f"boiler-{number}")
            found = decoder.decode(Arrivals("w", [topic], [body], [content_type], [at], [False]))
            assert [reason] == [*found.dead_letters] if reason else not found.dead_letters
            records += found.records
        records += tick_records(Tick(was.mqtt.workers[0], NOW), was.kafka.events_topic, was.kafka.partitions)
        publish(was, records)
        yield made


def publish(settings: Settings, records: list[Record]) -> None:
    publisher = Publisher(settings.kafka)
    publisher.send_all(records)
    publisher.flush()


def in_log(flows: Topology) -> Counter[tuple[str, tuple[tuple[str, float], ...]]]:
    """Readings of each record that was sent again."""
    return Counter(
        (message.device_id, tuple(sorted(message.metrics.items())))
        for record in flows.records(flows.settings.kafka.events_topic)
        if FROM in headers_of(record)
        for message in [Telemetry.FromString(record.value() or b"")]
    )


READINGS = 3 + 4  # of the first arrivals, and sent again
EXPECTED = Counter({("boiler-1", (("a", 1.0), ("b", 2.0), ("c", 3.0))): 1, ("boiler-2", (("a", 4.0),)): 1})


@pytest.mark.embedded
@pytest.mark.contract
def test_letters_are_sent_again_once_and_accounted_for(flows: Topology) -> None:
    """What today's decoder takes goes into the log, with the time it has; of the rest each says why it stays."""
    flows.start("minute_rollups")
    wait_for(
        lambda: flows.ask("select 1 from rollups_1m where device_id = 'boiler-0'"), "the minute is closed", flows.state
    )

    rehearsed = redrive(flows.settings, dry_run=True)
    assert in_log(flows) == Counter()
    result = redrive(flows.settings)
    assert rehearsed == result
    for _, _, reason, outcome in SENDINGS:
        if reason:
            ((now, often),) = [(now, often) for (then, now), often in result.letters.items() if then == reason]
            assert (now[: len(outcome)], often) == (outcome, 1)
    assert (in_log(flows), result.records) == (EXPECTED, 2)
    assert redrive(flows.settings).records == 0

    wait_for(
        lambda: flows.ask("select sum(count) from rollups_1m") == [(READINGS,)], "all are in their rows", flows.state
    )
    row = f"select metric, last, first_ts = to_timestamp({NOW - MINUTES + 2}::numeric / 1000) from rollups_1m"
    assert flows.ask(f"{row} where device_id = 'boiler-2'") == [("a", 4.0, True)]
    assert flows.ask("select sum(late) > 0 from ledger") == [(True,)], "their minutes had closed"
    assert flows.stop("minute_rollups") == 0
    assert [] == list(check(flows.settings, deep=True))


@pytest.mark.embedded
def test_a_killed_redrive_sends_nothing_twice_and_leaves_nothing_out(
    flows: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its records went, after some of them, or before it was confirmed."""
    publish_all, confirm = Publisher.send_all, SentAgain.confirm

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def killed_after_one(publisher: Publisher, records: list[Record]) -> None:
        publish_all(publisher, records[:1])
        publisher.flush()
        raise KeyboardInterrupt

    for broken, name, how in (
        (Publisher, "send_all", killed),
        (Publisher, "send_all", killed_after_one),
        (SentAgain, "confirm", killed),
    ):
        monkeypatch.setattr(broken, name, how)
        with pytest.raises(KeyboardInterrupt):
            redrive(flows.settings)
        monkeypatch.setattr(Publisher, "send_all", publish_all)
        monkeypatch.setattr(SentAgain, "confirm", confirm)
    redrive(flows.settings)
    assert in_log(flows) == EXPECTED


@pytest.mark.embedded
def test_letters_are_listed_for_a_person(flows: Topology, capsys: pytest.CaptureFixture[str]) -> None:
    """Reason, device and where it came by; no escape sequence reaches the terminal; counted by reason."""
    settings = ["--settings", str(flows.settings_path)]
    assert [*letters(flows.settings.kafka)]
    assert listing.main([*settings]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert r"\x1b[31m" in said
    assert "boiler-5" in said
    assert "of 5" in said.split("too_large")[1].split("\n")[0], "the size it had"
    assert listing.main([*settings, "--reason", "not_json", "--since", "-48h", "--count"]) == 0
    assert "not_json" in (counted := capsys.readouterr().out)
    assert "too_large" not in counted
    assert listing.main([*settings, "--reason", "rate_limited"]) == 0
    assert capsys.readouterr().out == "no such letters\n"


def test_the_device_of_a_letter_is_told_where_it_can_be() -> None:
    """From the topic of a message, from a record of the log, from a rollup; never from what only looks like one."""
    template = compile_topic("devices/{device_id}/telemetry")
    of_log = {"source-topic": "t", "source-offset": "1"}
    rollup = Rollup(bucket=60_000, length_ms=60_000, device_id="d", metric="m").SerializeToString()
    nobody = Telemetry(ts=60_000, metrics={"abcdefg": 1.0}).SerializeToString()
    cases = [
        ({"source-topic": "devices/d/telemetry"}, b"?", "d"),
        ({"source-topic": "elsewhere"}, b"?", ""),
        (of_log, Telemetry(device_id="d", ts=1).SerializeToString(), "d"),
        (of_log, rollup, "d"),
        (of_log, nobody, ""),
        (of_log, b"\xff\xff", ""),
    ]
    for headers, payload, device in cases:
        assert Letter(0, 0, 0, headers, payload).device(template) == device


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("right\u202eleft", r"right\u202eleft"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("a" * 200, "a" * 99 + "…"),
        ("ä°C\n", r"ä°C\n"),
    ],
)
def test_a_terminal_is_shown_nothing_that_it_would_obey(content: str | bytes, shown: str) -> None:
    """Control characters, text that changes direction, and bytes that are no text."""
    assert listing.safe(content) == shown
