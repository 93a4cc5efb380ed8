"""The demo from the outside: as a person runs it, with a subprocess and its output."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from infra.embedded.cache import cache_directory
from infra.fleet import record

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECS = 120.0  # of a machine that is busy; nothing waits for it to pass


class Demo:
    """A demo, and what can be known of it from the outside."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.output = folder / "output.txt"
        command = [sys.executable, "-m", "infra.demo", *arguments]
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECS
        while not condition():
            assert self.process.poll() is None, f"it ended: {self.said}"
            assert time.monotonic() < deadline, f"{what}: {self.said}"
            time.sleep(0.1)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECS)

    def children(self) -> set[int]:
        """Every process that descends from it now."""
        return {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}

    @property
    def addresses(self) -> dict[str, str]:
        """What it announced: it may not be the only demo here."""
        (path,) = (cache_directory() / "running").glob(f"*-{self.process.pid}.env")
        return dict(line.split("=", 1) for line in path.read_text().splitlines())

    @property
    def ports(self) -> list[int]:
        return [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", self.said)]

    @property
    def folder(self) -> Path:
        found = re.search(r"^  logs +(/.*)$", self.said, re.MULTILINE)
        assert found
        return Path(found[1])


def nothing_is_left(demo: Demo, children: set[int]) -> bool:
    alive = [pid for pid in children if Path(f"/proc/{pid}").exists()]
    return not alive and not any(map(listens, demo.ports))


def wait_until_nothing_is_left(demo: Demo, children: set[int]) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not nothing_is_left(demo, children):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_demo_shows_rollups_takes_a_reading_and_leaves_nothing(tmp_path):
    """Rows appear, also that of a reading published by hand; a balanced ledger accounts for what the fleet recorded."""
    path = tmp_path / "sent.jsonl"
    demo = Demo(tmp_path, "--history", "3m", "--record", str(path))
    try:
        demo.wait_for(lambda: re.search(r"[1-9]\d* rows", demo.said), "rollups appear")
        publish_a_reading(demo.addresses)
        publish_refusals(demo.addresses)
        children = demo.children()
        assert len(children) >= 9  # three servers, three programs, and the keeper of each
        assert len(demo.ports) == 3
        assert demo.end(signal.SIGINT) == 0, demo.said
    finally:
        demo.process.kill()
    assert nothing_is_left(demo, children)
    assert not demo.folder.exists()
    assert record.ended(path)
    sent = sum(1 for _ in record.read(path))
    assert f"{sent:,} sent {sent:,} acknowledged" in demo.said
    assert demo.said.count("✓") == 3
    assert "NOT" not in demo.said
    for reason in REFUSED:
        assert reason in demo.said


def publish_a_reading(at: dict[str, str]) -> None:
    command = [sys.executable, "-m", "infra.publish", "boiler-7", "temperature=21.5", "--ts=-200s", "--wait"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | at)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"boiler-7 +temperature +1 +21\.5", done.stdout)
    with psycopg.connect(at["DATABASE_URL"]) as database:
        query = "select metric, count, revision from rollups_1m where device_id = 'boiler-7'"
        assert database.execute(query).fetchall() == [("temperature", 1, 1)]


# Both are said by hand: the fleet has such ones too, but the device with the fast clock is silent now and then.
REFUSED = {
    "not_a_number": ["--raw", '{"metrics": {"t": "hot"}}'],
    "timestamp_in_future": ["t=1", "--ts=+1h"],
}


def publish_refusals(at: dict[str, str]) -> None:
    command = [sys.executable, "-m", "infra.publish", "boiler-7", "--wait"]
    running = [
        subprocess.Popen([*command, *wrong], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | at)
        for wrong in REFUSED.values()
    ]
    for process, reason in zip(running, REFUSED, strict=True):
        said, _ = process.communicate(timeout=PATIENCE_SECS)
        assert process.returncode == 1
        assert f"refused, and kept in raw.dead_letter: {reason}" in said


def test_a_demo_ends_by_itself_when_its_time_is_over(tmp_path, mqtt_url):
    """``--for`` ends it with status 0, and nothing is left."""
    demo = Demo(tmp_path, "--for", "1s", "--mqtt", mqtt_url, "--topic", "ends/{device_id}")
    try:
        demo.wait_for(lambda: "to go" in demo.said, "it runs")
        children = demo.children()
        assert demo.process.wait(PATIENCE_SECS) == 0, demo.said
    finally:
        demo.process.kill()
    assert nothing_is_left(demo, children)


def test_a_killed_demo_takes_its_children_with_it(tmp_path):
    """Even kill -9 leaves nothing running for long, and the next demo clears what it left on disk."""
    demo = Demo(tmp_path, "--history", "1m")
    try:
        demo.wait_for(lambda: "fleet" in demo.said, "it has begun")
        children = demo.children()
        assert children
    finally:
        demo.process.kill()
        demo.process.wait()
    wait_until_nothing_is_left(demo, children)


def test_a_demo_told_to_stop_while_it_starts_stops(tmp_path):
    """SIGTERM before everything runs: status 0, nothing left, not even on disk."""
    demo = Demo(tmp_path)
    try:
        demo.wait_for(lambda: "logs" in demo.said, "it has begun")
        children = demo.children()
        assert demo.end(signal.SIGTERM) == 0
        wait_until_nothing_is_left(demo, children)  # a keeper that was being started sees that its demo is gone
        assert not demo.folder.exists()
    finally:
        demo.process.kill()


def test_your_own_broker_takes_the_fleets_place_and_a_dataflow_that_dies_stops_all(tmp_path, mqtt_url):
    """With ``--mqtt`` no broker and no fleet are started; what devices publish there, on their topic, is rolled up.

    The end of one process ends the demo with status 1, its last log lines, and the place of all logs.
    """
    demo = Demo(tmp_path, "--mqtt", mqtt_url, "--topic", "site/{site}/{device_id}")
    try:
        demo.wait_for(lambda: "messages" in demo.said, "it has begun")
        at = demo.addresses
        for secs in (200, 10):
            command = [sys.executable, "-m", "infra.publish", "pump-1", "flow=2.5", "--capture", "site=a"]
            subprocess.run([*command, f"--ts=-{secs}s"], cwd=ROOT, check=True, env=os.environ | at)
        demo.wait_for(lambda: re.search(r" 1 rows|[1-9] late", demo.said), "the row appears")
        with psycopg.connect(at["DATABASE_URL"]) as database:
            assert ("pump-1", "flow", 2.5) in database.execute(
                "select device_id, metric, mean from rollups_1m"
            ).fetchall()
        children = demo.children()
        (ingest,) = ingest_of(demo)
        os.kill(ingest, signal.SIGKILL)
        assert demo.process.wait(PATIENCE_SECS) == 1
    finally:
        demo.process.kill()
    assert "fleet" not in demo.said
    assert "ingest ended by itself with code 137" in demo.said
    assert nothing_is_left(demo, children)
    assert {path.name for path in demo.folder.glob("*.log")} >= {"ingest.log", "minute_rollups.log"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mqtt", "mqtt://127.0.0.1:9"], "127.0.0.1:9"),
        (["--topic", "x/{device_id}"], "--mqtt"),
        (["--faults", "gremlins"], "gremlins"),
        (["--devices", "0"], "at least one"),
    ],
)
def test_a_demo_that_cannot_be_is_one_message(tmp_path, arguments, words):
    """Wishes that make no sense, and a broker that is away: status 1 and words, no traceback."""
    demo = Demo(tmp_path, *arguments)
    assert demo.process.wait(PATIENCE_SECS) == 1
    assert words in demo.said
    assert "Traceback" not in demo.said


def ingest_of(demo: Demo) -> list[int]:
    """The process of ingest, without its keeper."""
    commands = {pid: _command_of(pid) for pid in demo.children()}
    return [pid for pid, command in commands.items() if "dataflows.ingest" in command and "keeper.py" not in command]


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
