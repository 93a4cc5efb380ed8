"""The fleet on a real broker: what its record says is what happened."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest

from infra.fleet import record
from infra.fleet.plan import Plan, parse_faults
from infra.fleet.run import Tally, now_ms, run_fleet
from infra.fleet.stream import Message, Stream
from tests.infra.mqtt_ear import Ear

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).resolve().parents[2]


def a_topic() -> str:
    return f"fleet-{uuid.uuid4().hex[:8]}/{{device_id}}/telemetry"


def a_plan(**changes) -> Plan:
    known = {"start_ms": now_ms(), "for_secs": 1, "history_secs": 120, "rate": 200, "topic": a_topic()}
    return Plan(**known | {"faults": parse_faults("all")} | changes)


def all_of(plan: Plan) -> list[Message]:
    """What the plan says, without a clock."""
    stream, messages = Stream(plan), []
    while stream.at_ms < (plan.end_ms or 0):
        messages += stream.advance(plan.end_ms or 0)
    return messages


@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_a_subscriber_receives_exactly_what_the_record_says(mqtt_url, tmp_path, form):
    """Every message is acknowledged, and received as often as it was sent, byte for byte, with its content type.

    Not in its order: Artemis 2.55 now and then passes a topic's messages on in another one.
    """
    plan, path = a_plan(format=form), tmp_path / "sent.jsonl"
    with Ear(mqtt_url, plan.topic.replace("{device_id}", "+")) as ear:
        tally = run_fleet(mqtt_url, plan, path)
        assert ear.wait_until(lambda: len(ear.heard) >= tally.sent)
    sent = list(record.read(path))
    assert Counter((it.topic, it.payload) for it in sent) == Counter(heard[:2] for heard in ear.heard)
    assert {content_type for _, _, content_type, _ in ear.heard} == {record.head(path)["content_type"]}
    assert all(it.acked_at is not None and it.acked_at >= it.sent_at for it in sent)
    assert [it.n for it in sent] == list(range(tally.sent))
    assert tally.sent == tally.acked > 20_000
    assert record.ended(path)


def test_history_is_sent_first_and_then_time_goes_on(mqtt_url, tmp_path):
    """Messages leave in the order they are due, and none before it is due; history does not wait."""
    plan, path = a_plan(faults={}, for_secs=2), tmp_path / "sent.jsonl"
    tally = run_fleet(mqtt_url, plan, path)
    sent = list(record.read(path))
    due = [json.loads(it.payload)["ts"] for it in sent]
    assert due == sorted(due)
    assert len(due) == len(all_of(plan))
    assert all(it.sent_at >= at for it, at in zip(sent, due, strict=True))
    assert tally.history_done_secs is not None
    assert tally.history_done_secs < 120


def test_a_killed_fleet_leaves_a_record_of_all_that_arrived(mqtt_url, tmp_path):
    """After kill -9, every message received stands in the record, and every acknowledged one was received."""
    topic, path = a_topic(), tmp_path / "sent.jsonl"
    with Ear(mqtt_url, topic.replace("{device_id}", "+")) as ear:
        command = [sys.executable, "-m", "infra.load", "--mqtt", mqtt_url, "--topic", topic, "--rate", "5000"]
        fleet = subprocess.Popen(
            [*command, "--history", "1h", "--faults", "all", "--record", str(path)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert ear.wait_until(lambda: len(ear.heard) > 2_000 and b'"acked"' in path.read_bytes())
        finally:
            fleet.send_signal(signal.SIGKILL)
            fleet.wait()
        sent = list(record.read(path))
        acked = Counter((it.topic, it.payload) for it in sent if it.acked_at is not None)
        assert ear.wait_until(lambda: not acked - Counter(it[:2] for it in ear.heard))
        heard = Counter(it[:2] for it in ear.heard)
    assert not heard - Counter((it.topic, it.payload) for it in sent)
    assert acked
    assert not record.ended(path)


def test_a_broker_that_is_killed_and_started_again_gets_what_it_had_not_acknowledged(mqtt_broker, tmp_path):
    """The fleet reconnects, sends again what was in flight, says so in the record, and ends with all acknowledged."""
    plan, path, seen = a_plan(rate=2_000, for_secs=2, history_secs=30), tmp_path / "sent.jsonl", threading.Event()

    def report(tally: Tally) -> None:
        if tally.acked:
            seen.set()

    def kill_and_start() -> None:
        seen.wait(60)
        mqtt_broker.kill()
        mqtt_broker.start()

    restarting = threading.Thread(target=kill_and_start)
    restarting.start()
    try:
        tally = run_fleet(mqtt_broker.url, plan, path, report=report)
    finally:
        restarting.join()
    sent = list(record.read(path))
    assert tally.reconnects >= 1
    assert tally.sent == tally.acked == len(sent)
    assert sum(it.resent for it in sent) == tally.resent
    assert tally.resent > 0
    assert all(it.acked_at is not None for it in sent)


def test_a_fleet_told_to_stop_ends_with_all_acknowledged(mqtt_url, tmp_path):
    """SIGTERM ends the program within seconds, with status 0, a summary and a complete record."""
    path = tmp_path / "sent.jsonl"
    command = [sys.executable, "-m", "infra.load", "--mqtt", mqtt_url, "--topic", a_topic(), "--forever"]
    fleet = subprocess.Popen(
        [*command, "--record", str(path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 90
    while not (path.exists() and len(path.read_bytes().splitlines()) > 10):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    fleet.send_signal(signal.SIGTERM)
    out, _ = fleet.communicate(timeout=60)
    assert fleet.returncode == 0
    assert "acknowledged" in out
    assert record.ended(path)
    assert all(it.acked_at is not None for it in record.read(path))


def test_memory_does_not_grow_with_what_is_sent(mqtt_url):
    """A fleet that has sent a hundred thousand messages holds no more than one that has sent a tenth of them."""
    peaks = {}
    for secs in (40, 400):
        script = (
            "import resource, sys; from infra.fleet.plan import Plan, parse_faults; from infra.fleet.run import *\n"
            f"plan = Plan(start_ms=now_ms(), for_secs=0, history_secs={secs}, rate=250, topic={a_topic()!r},"
            " faults=parse_faults('late=0.01'))\n"
            f"assert run_fleet({mqtt_url!r}, plan).acked > {secs * 200}\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        peaks[secs] = int(out.stdout)
    assert peaks[400] < peaks[40] * 1.25


def test_an_unreachable_broker_is_one_line(tmp_path):
    """No broker at the address: one line that names it, status 1, no traceback, and no record begun."""
    path = tmp_path / "sent.jsonl"
    command = [sys.executable, "-m", "infra.load", "--mqtt", "mqtt://127.0.0.1:9", "--record", str(path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"MQTT_PASSWORD": "hush"}
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "mqtt://127.0.0.1:9" in done.stderr
    assert "hush" not in done.stderr
    assert not path.exists()
