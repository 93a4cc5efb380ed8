"""From a fleet over MQTT to rows in the database, through both dataflows as processes of their own.

The fleet's record is the truth: every row must equal one group_by over it.
"""

import json
import math
import time
from pathlib import Path

import pytest

from infra.fleet import record
from infra.fleet.plan import Plan, parse_faults
from infra.fleet.run import now_ms, run_fleet
from schemas.rollup_pb2 import Rollup
from tests.connectors.mqtt_devices import Sent, publish
from tests.fleet_oracle import Expected, Row
from tests.topology import Topology, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

COLUMNS = "count, mean, m2, min, max, first, last"
TIMES = "(extract(epoch from first_ts) * 1000)::bigint, (extract(epoch from last_ts) * 1000)::bigint"
MINUTE_MS = 60_000


def test_every_row_equals_a_group_by_over_what_the_fleet_sent(
    tmp_path: Path, kafka_bootstrap: str, database_url: str, mqtt_url: str
) -> None:
    """With duplicates, disorder, late, broken and future readings, and an ingest that was down while devices sent."""
    # Ticks come seldom, so that the first backlog is in the log before one of them closes its minutes.
    with topology(tmp_path, kafka_bootstrap, database_url, mqtt_url, mqtt={"tick_secs": 10}) as flows:
        subscribe(flows)
        assert flows.stop("ingest") == 0
        expected = Expected()
        start_ms = now_ms() - 10 * MINUTE_MS

        send(flows, expected, Plan(start_ms=start_ms, seed=1, format="json"), tmp_path / "on-time.jsonl")
        flows.start("ingest")
        flows.start("minute_rollups")
        wait_for(lambda: settled(flows, expected), "the backlog is counted and closed")

        # Another fleet under the same names: its minutes are closed, so all of it is late.
        send(flows, expected, Plan(start_ms=start_ms + 7, seed=2, format="protobuf"), tmp_path / "late.jsonl")
        send_from_the_future(flows, expected)
        wait_for(lambda: settled(flows, expected), "the late readings are in their rows")

        assert_rows_equal(flows, expected)
        assert_dead_letters_equal(flows, expected)
        assert_ledger_balances(flows, expected)
        assert_topic_equals_table(flows)
        assert [flows.stop("ingest"), flows.stop("minute_rollups")] == [0, 0]


def subscribe(flows: Topology) -> None:
    """Start ingest and wait until what is published reaches the log; the probes do not count as the fleet's."""
    flows.start("ingest")
    probe = Sent(flows.topic.format(device_id="probe"), b"is anybody there?")

    def answered() -> bool:
        publish(flows.settings.mqtt.url, [probe], client_id=f"{flows.prefix}-probe")
        return any(m.value() == probe.payload for m in flows.records(flows.settings.kafka.dead_letter_topic))

    wait_for(answered, "ingest receives")


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
    """Whether all that was sent is accounted for and no minute is open."""
    ((messages, still_open),) = flows.ask("select coalesce(sum(messages), 0), coalesce(sum(open), 0) from ledger")
    return messages == expected.messages and still_open == 0


def assert_rows_equal(flows: Topology, expected: Expected) -> None:
    found = {
        ((device_id, metric), bucket): Row(*row)
        for device_id, metric, bucket, *row in flows.ask(
            f"select device_id, metric, (extract(epoch from bucket) * 1000)::bigint, {COLUMNS}, {TIMES} from rollups_1m"
        )
    }
    rows = expected.rows()
    assert rows.keys() == found.keys()
    for key, row in rows.items():
        # Mean and m2 of a row that was revised were combined, to rounding; all else is exact.
        close = found[key]._replace(
            mean=row.mean if math.isclose(row.mean, found[key].mean, rel_tol=1e-12, abs_tol=1e-12) else found[key].mean,
            m2=row.m2 if math.isclose(row.m2, found[key].m2, rel_tol=1e-9, abs_tol=1e-9) else found[key].m2,
        )
        assert row == close, key


def assert_dead_letters_equal(flows: Topology, expected: Expected) -> None:
    letters = flows.records(flows.settings.kafka.dead_letter_topic)
    payloads = {letter.value() for letter in letters} - {b"is anybody there?"}
    assert expected.dead == payloads
    reasons = {dict(letter.headers())["reason"] for letter in letters}
    assert {b"not_json", b"bad_protobuf", b"not_a_number", b"timestamp_in_future", b"device_mismatch"} <= reasons


def assert_ledger_balances(flows: Topology, expected: Expected) -> None:
    ((accounted, explained, counted, late, duplicates, late_duplicates),) = flows.ask(
        """select sum(position - start - messages - ticks - refused - gaps),
                  sum(readings - counted - late - duplicates - late_duplicates - open),
                  sum(counted), sum(late), sum(duplicates), sum(late_duplicates)
           from ledger join progress using (flow, topic, partition)"""
    )
    assert (accounted, explained) == (0, 0)
    assert counted + late == sum(len(seen) for seen in expected.readings.values())
    assert duplicates + late_duplicates >= expected.repeated  # a broker may deliver twice
    assert min(counted, late, duplicates, late_duplicates) > 0, "each of them was sent"
    ((rows,),) = flows.ask("select sum(count) from rollups_1m")
    ((days,),) = flows.ask("select sum(counted + late) from ledger_days")
    assert rows == days == counted + late


def assert_topic_equals_table(flows: Topology) -> None:
    """Of each (series, bucket) the highest revision in aggregates.minute is the row."""
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
