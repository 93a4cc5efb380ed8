"""From a fleet over MQTT to rows in the database, through both dataflows as processes of their own.

The fleet's record is the truth: every row must equal one group_by over it.
"""

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.demo.doorstep import subscribe_ahead
from infra.fleet import record
from infra.fleet.plan import Plan, parse_faults
from infra.fleet.run import now_ms, run_fleet
from infra.migrations import MIGRATIONS, migrate
from infra.verify.__main__ import check
from schemas.rollup_pb2 import Rollup
from tests.connectors.mqtt_devices import Sent, publish
from tests.databases import fresh_database
from tests.fleet_oracle import Expected, Row, Series
from tests.topology import DEADLINE_SECS, ROOT, Topology, beside, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

COLUMNS = "count, mean, m2, min, max, first, last"
TIMES = "(extract(epoch from first_ts) * 1000)::bigint, (extract(epoch from last_ts) * 1000)::bigint"
MINUTE_MS = 60_000
ONE_ROW = "(device_id, metric, bucket) = (select device_id, metric, bucket from rollups_1m order by 1, 2, 3 limit 1)"


@pytest.fixture(scope="module")
def database(admin_url: str) -> Iterator[str]:
    """A database for the tests of this module."""
    with fresh_database(admin_url) as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, database: str, mqtt_url: str
) -> Iterator[tuple[Topology, Expected]]:
    """What two fleets sent, accounted for: with duplicates, disorder, late, broken and future readings."""
    folder = tmp_path_factory.mktemp("end-to-end")
    with topology(folder, kafka_bootstrap, database, mqtt_url) as flows:
        subscribe_ahead(flows.settings.mqtt)
        expected = Expected()
        start_ms = now_ms() - 10 * MINUTE_MS

        send(flows, expected, Plan(start_ms=start_ms, seed=1, format="json"), folder / "first.jsonl")
        flows.start("ingest")
        flows.start("minute_rollups")
        wait_for(lambda: settled(flows, expected), f"{expected.messages} messages are counted and closed", flows.state)

        # Another fleet under the same names: its minutes are closed, so all of it is late.
        send(flows, expected, Plan(start_ms=start_ms + 7, seed=2, format="protobuf"), folder / "late.jsonl")
        send_from_the_future(flows, expected)
        wait_for(lambda: settled(flows, expected), f"{expected.messages} messages are in their rows", flows.state)

        assert [flows.stop("ingest"), flows.stop("minute_rollups")] == [0, 0]
        yield flows, expected


def send(flows: Topology, expected: Expected, plan: Plan, path: Path) -> None:
    """Run a fleet over four minutes of the past, and take its record for the truth."""
    made = Plan(
        start_ms=plan.start_ms,
        seed=plan.seed,
        format=plan.format,
        devices_per_user=12,
        rate=12,
        for_secs=0,
        history_secs=240,
        faults=parse_faults("duplicate=0.05,disorder=0.05,late=0.02,broken=0.05,spike=0.01,stuck"),
        topic=flows.topic,
    )
    tally = run_fleet(flows.settings.mqtt.url, made, path)
    assert tally.unanswered == tally.refused == 0
    for sent in record.read(path):
        assert sent.acked_at is not None
        expected.add(sent.topic, sent.payload, sent.sent_at)


def send_from_the_future(flows: Topology, expected: Expected) -> None:
    now = time.time_ns() // 1_000_000
    body = json.dumps({"device_id": "boiler-1", "ts": now + 3_600_000, "metrics": {"temperature": 21.5}}).encode()
    topic = flows.topic.format(device_id="boiler-1")
    publish(flows.settings.mqtt.url, [Sent(topic, body)], client_id=f"{flows.prefix}-future")
    expected.add(topic, body, now)


def settled(flows: Topology, expected: Expected) -> bool:
    """Whether all that was sent is accounted for and no minute is open. A broker may deliver a message twice."""
    flow = flows.settings.flow.name
    ((messages, still_open),) = flows.ask(
        f"select coalesce(sum(messages), 0), coalesce(sum(open), 0) from ledger where flow = '{flow}'"
    )
    return messages >= expected.messages and still_open == 0


def test_every_row_equals_a_group_by_over_what_the_fleet_sent(told: tuple[Topology, Expected]) -> None:
    """Row by row; a row that was revised to rounding in mean and m2."""
    flows, expected = told
    assert_rows(flows, expected.rows())


def test_a_rollup_of_five_minutes_is_a_settings_file_and_a_line(
    told: tuple[Topology, Expected], tmp_path: Path
) -> None:
    """One migration of one line and a file with four settings: the same log gives rows of five minutes."""
    flows, expected = told
    shutil.copytree(MIGRATIONS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "9001_rollups_5m.sql").write_text("select create_rollup_table('rollups_5m');\n")
    migrate(flows.settings.database.conninfo, tmp_path)
    output = {"table": "rollups_5m", "topic": f"{flows.prefix}.five"}
    with beside(flows, "five.yaml", windows={"length_secs": 300}, flow={"name": "fives"}, output=output) as fives:
        fives.start("minute_rollups")
        wait_for(lambda: settled(fives, expected), f"{expected.messages} messages are counted and closed", fives.state)
        assert fives.stop("minute_rollups") == 0
        assert_rows(fives, expected.rows(5 * MINUTE_MS))
        assert [] == list(check(fives.settings, deep=True))


def assert_rows(flows: Topology, rows: Mapping[tuple[Series, int], Row]) -> None:
    """The table holds these rows and no other; mean and m2 of a row that was revised were combined, to rounding."""
    found = {
        ((device_id, metric), bucket): Row(*row)
        for device_id, metric, bucket, *row in flows.ask(
            f"select device_id, metric, (extract(epoch from bucket) * 1000)::bigint, {COLUMNS}, {TIMES}"
            f" from {flows.settings.output.table}"
        )
    }
    assert rows.keys() == found.keys()
    wrong = []
    for key, row in rows.items():
        close = found[key]._replace(
            mean=row.mean if math.isclose(row.mean, found[key].mean, rel_tol=1e-12, abs_tol=1e-12) else found[key].mean,
            m2=row.m2 if math.isclose(row.m2, found[key].m2, rel_tol=1e-9, abs_tol=1e-9) else found[key].m2,
        )
        if row != close:
            wrong.append(f"{key}: {row} is sent, {found[key]} is found")
    assert not wrong, "\n".join([*wrong, flows.state()])


def test_what_cannot_be_used_stands_in_the_dead_letter(told: tuple[Topology, Expected]) -> None:
    """Its bytes as they were sent, and a reason."""
    flows, expected = told
    letters = flows.records(flows.settings.kafka.dead_letter_topic)
    payloads = {letter.value() for letter in letters}
    assert expected.dead == payloads
    reasons = {dict(letter.headers())["reason"] for letter in letters}
    assert {b"not_json", b"bad_protobuf", b"not_a_number", b"timestamp_in_future", b"device_mismatch"} <= reasons


def test_the_ledger_explains_every_reading(told: tuple[Topology, Expected]) -> None:
    """It balances by itself, against the table, and against what was sent."""
    flows, expected = told
    ((accounted, explained, counted, late, duplicates, late_duplicates),) = flows.ask(
        """select sum(position - start - messages - ledger.ticks - refused - gaps),
                  sum(readings - counted - late - duplicates - late_duplicates - open),
                  sum(counted), sum(late), sum(duplicates), sum(late_duplicates)
           from ledger join progress using (flow, topic, partition) where flow = 'minute_rollups'"""
    )
    assert (accounted, explained) == (0, 0)
    assert counted + late == sum(len(seen) for seen in expected.readings.values())
    assert duplicates + late_duplicates >= expected.repeated  # a broker may deliver twice
    assert min(counted, late, late_duplicates) > 0, "each of them was sent"
    ((rows,),) = flows.ask("select sum(count) from rollups_1m")
    ((days,),) = flows.ask("select sum(counted + late) from ledger_days where flow = 'minute_rollups'")
    assert rows == days == counted + late


def test_the_topic_tells_the_table(told: tuple[Topology, Expected]) -> None:
    """Of each (series, bucket) the highest revision in aggregates.minute is the row."""
    flows, _ = told
    newest: dict[tuple[str, str, int], Rollup] = {}
    for message in flows.records(flows.settings.output.topic):
        rollup = Rollup.FromString(message.value())
        if rollup.device_id:
            key = (rollup.device_id, rollup.metric, rollup.bucket)
            if key not in newest or rollup.revision >= newest[key].revision:
                newest[key] = rollup
    table = flows.ask(
        "select device_id, metric, (extract(epoch from bucket) * 1000)::bigint, revision, count, mean from rollups_1m"
    )
    assert {tuple(row) for row in table} == {(*key, r.revision, r.count, r.mean) for key, r in newest.items()}


def test_verify_finds_nothing_wrong(told: tuple[Topology, Expected]) -> None:
    """By the ledger, by the log read again, and by what the fleets recorded."""
    flows, _ = told
    for name in ("first", "late"):
        assert [] == list(check(flows.settings, deep=True, sent_path=flows.folder / f"{name}.jsonl"))


VERDICTS_MAX = 100  # until a change shows

TAMPERING = {  # name → what is done, whether only --deep can see it, what is said
    "a row deleted": (f"delete from rollups_1m where {ONE_ROW}", False, "rows hold"),
    "a count changed": (f"update rollups_1m set count = count + 1 where {ONE_ROW}", False, "rows hold"),
    "a mean changed": (f"update rollups_1m set mean = mean + 1e-6 where {ONE_ROW}", True, "offsets .* mean is"),
    "two counts swapped": (
        """with two as (select device_id, metric, bucket, count, row_number() over (order by count) as n,
                               row_number() over (order by count desc) as other from rollups_1m)
           update rollups_1m set count = b.count from two a join two b on a.n = b.other
           where (rollups_1m.device_id, rollups_1m.metric, rollups_1m.bucket) = (a.device_id, a.metric, a.bucket)
             and (a.n = 1 or b.n = 1)""",
        True,
        "offsets .* count is",
    ),
    "the ledger edited": ("update ledger set late = late + 1 where partition = 1", False, "partition 1: .*ledger"),
    "a record unexplained": ("update ledger set messages = messages - 1 where partition = 2", False, "2, offsets"),
    "a late reading dropped": (
        """delete from late_readings where (tableoid, ctid) =
           (select tableoid, ctid from late_readings where flow = 'minute_rollups' limit 1)""",
        False,
        "late_readings holds",
    ),
    "a record passed over": ("update progress set position = position + 1 where partition = 0", False, "partition 0"),
}


@pytest.mark.parametrize("tampering", TAMPERING)
def test_verify_finds_and_locates(told: tuple[Topology, Expected], tampering: str) -> None:
    """What was changed behind the back of the flow; verify that cannot fail would prove nothing."""
    flows, _ = told
    statement, deep, words = TAMPERING[tampering]
    with kept_tables(flows.settings.database.conninfo) as connection:
        connection.execute(statement.encode())
        connection.commit()
        found = "\n".join(map(str, check(flows.settings, deep=deep)))
    assert re.search(words, found), found


def test_verify_watches(told: tuple[Topology, Expected]) -> None:
    """Again and again, through a pipe, too: what is changed meanwhile is found, and found mended; Ctrl-C ends it."""
    flows, _ = told
    command = [sys.executable, "-m", "infra.verify", "--settings", str(flows.settings_path), "--watch", "0.1"]
    with kept_tables(flows.settings.database.conninfo) as connection:
        watching = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert watching.stdout is not None
            verdicts = (line[0] for line in watching.stdout if line.endswith(("exactly once\n", "is explained\n")))
            assert [next(verdicts), next(verdicts)] == ["✓", "✓"]
            connection.execute("update ledger set late = late + 1 where partition = 1")
            connection.commit()
            assert "✗" in islice(verdicts, VERDICTS_MAX)
            connection.execute("update ledger set late = late - 1 where partition = 1")
            connection.commit()
            assert "✓" in islice(verdicts, VERDICTS_MAX)
            watching.send_signal(signal.SIGINT)
            watching.communicate(timeout=DEADLINE_SECS)
            assert watching.returncode == 130
        finally:
            watching.kill()
            watching.wait()


def test_verify_finds_a_message_that_never_arrived(told: tuple[Topology, Expected], tmp_path: Path) -> None:
    """The fleet holds an acknowledgement; neither log nor dead letter holds the message."""
    flows, _ = told
    lines = (flows.folder / "first.jsonl").read_text().splitlines()
    number = json.loads(lines[-2 if "ended" in lines[-1] else -1])["acked"][-1][-1] + 1
    body = {"device_id": "boiler-1", "ts": 1_700_000_000_000, "metrics": {"temperature": 1.0}}
    topic = flows.topic.format(device_id="boiler-1")
    sent = {"n": number, "sent_at": 0, "topic": topic, "payload": json.dumps(body), "fault": ""}
    path = tmp_path / "forged.jsonl"
    path.write_text("\n".join([*lines, json.dumps(sent), json.dumps({"acked": [[number, number]], "at": 1}), ""]))

    (found,) = check(flows.settings, sent_path=path)

    assert f"message {number} of forged.jsonl" in str(found)


@contextmanager
def kept_tables(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to tamper by; afterwards the tables are as they were."""
    tables = ("rollups_1m", "ledger", "progress", "late_readings")
    with psycopg.connect(conninfo) as connection:
        for table in tables:
            connection.execute(f"create temporary table kept_{table} as table {table}".encode())
        try:
            yield connection
        finally:
            connection.rollback()
            for table in tables:
                connection.execute(f"delete from {table}".encode())
                connection.execute(f"insert into {table} select * from kept_{table}".encode())
