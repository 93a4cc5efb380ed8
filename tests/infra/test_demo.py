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

import psycopg
import pytest

from infra import running
from infra.fleet import record

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECS = 120.0  # of a machine that is busy; nothing waits for it to pass


class Demo:
    """A demo with a cache of announcements of its own, so that no other is found in its place."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.output = folder / "output.txt"
        self.announcements = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", "")}
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
        return self.process.wait(60)

    def children(self) -> set[int]:
        """Every process that descends from it now."""
        found, parents = set(), {self.process.pid}
        table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
        while parents:
            parents = {pid for pid, parent in pairs if parent in parents} - found
            found |= parents
        return found

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


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_demo_shows_rollups_and_leaves_nothing(tmp_path):
    """Rows appear, a balanced ledger accounts for all that the fleet recorded, and at its end all of it is gone."""
    path = tmp_path / "sent.jsonl"
    demo = Demo(tmp_path, "--for", "20s", "--history", "3m", "--record", str(path))
    try:
        demo.wait_for(lambda: re.search(r"[1-9]\d* rows", demo.said), "rollups appear")
        children = demo.children()
        assert len(children) >= 9  # three servers, three programs, and the keeper of each
        assert len(demo.ports) == 3
        assert demo.process.wait(90) == 0, demo.said
    finally:
        demo.process.kill()
    assert nothing_is_left(demo, children)
    assert not demo.folder.exists()
    sent = list(record.read(path))
    assert record.ended(path)
    assert f"{len(sent):,} sent {len(sent):,} acknowledged" in demo.said
    assert demo.said.count("✓") == 3
    assert "NOT" not in demo.said
    for kind in ("timestamp_in_future", "not_a_number"):
        assert kind in demo.said


def test_a_reading_published_by_hand_is_found_in_its_row(tmp_path):
    """``publish --wait`` finds the running demo by itself, and shows the row of a late reading within seconds."""
    demo = Demo(tmp_path, "--history", "2m")
    try:
        demo.wait_for(lambda: re.search(r"[1-9]\d* rows", demo.said), "rollups appear")
        at = running.find()
        assert f":{demo.ports[0]}" in at["MQTT_URL"]
        command = [sys.executable, "-m", "infra.publish", "boiler-7", "temperature=21.5", "--ts=-150s", "--wait"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | at)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"boiler-7 +temperature +1 +21\.5", done.stdout)
        with psycopg.connect(at["DATABASE_URL"]) as database:
            rows = database.execute(
                "select metric, count, revision from rollups_1m where device_id = 'boiler-7'"
            ).fetchall()
        assert rows == [("temperature", 1, 1)]
        refused = [sys.executable, "-m", "infra.publish", "boiler-7", "--raw", '{"metrics": {"t": "hot"}}', "--wait"]
        done = subprocess.run(refused, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | at)
        assert done.returncode == 1
        assert "refused, and kept in raw.dead_letter: not_a_number" in done.stdout
        children = demo.children()
        assert demo.end(signal.SIGINT) == 0, demo.said
        assert nothing_is_left(demo, children)
    finally:
        demo.process.kill()


def test_a_demo_whose_dataflow_dies_says_so_and_stops_all(tmp_path):
    """The end of one process ends the demo with status 1, its last log lines, and the place of all logs."""
    demo = Demo(tmp_path, "--history", "1m")
    try:
        demo.wait_for(lambda: "minute_rollups" in demo.said, "the dataflows have begun")
        children = demo.children()
        flows = [pid for pid in children if "dataflows.ingest" in _command_of(pid) and "keeper" not in _command_of(pid)]
        os.kill(flows[0], signal.SIGKILL)
        assert demo.process.wait(60) == 1
    finally:
        demo.process.kill()
    assert "ingest ended by itself with code 137" in demo.said
    assert nothing_is_left(demo, children)
    assert {path.name for path in demo.folder.glob("*.log")} >= {"ingest.log", "minute_rollups.log", "fleet.log"}


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
    deadline = time.monotonic() + 30
    while not nothing_is_left(demo, children):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_demo_told_to_stop_while_it_starts_stops(tmp_path):
    demo = Demo(tmp_path)
    try:
        demo.wait_for(lambda: "logs" in demo.said, "it has begun")
        children = demo.children()
        assert demo.end(signal.SIGTERM) == 0
        assert nothing_is_left(demo, children)
        assert not demo.folder.exists()
    finally:
        demo.process.kill()


def test_your_own_broker_takes_the_fleets_place(tmp_path, mqtt_url):
    """With ``--mqtt`` no broker and no fleet are started; what devices publish there, on their topic, is rolled up."""
    demo = Demo(tmp_path, "--mqtt", mqtt_url, "--topic", "site/{site}/{device_id}")
    try:
        demo.wait_for(lambda: "messages" in demo.said, "it has begun")
        at = running.find() | {"MQTT_URL": mqtt_url}
        for secs in (200, 10):
            command = [sys.executable, "-m", "infra.publish", "pump-1", "flow=2.5", "--capture", "site=a"]
            subprocess.run([*command, f"--ts=-{secs}s"], cwd=ROOT, check=True, env=os.environ | at)
        demo.wait_for(lambda: re.search(r" 1 rows|[1-9] late", demo.said), "the row appears")
        with psycopg.connect(at["DATABASE_URL"]) as database:
            assert ("pump-1", "flow", 2.5) in database.execute(
                "select device_id, metric, mean from rollups_1m"
            ).fetchall()
        assert demo.end(signal.SIGINT) == 0
        assert "fleet" not in demo.said
    finally:
        demo.process.kill()


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
    demo = Demo(tmp_path, *arguments)
    assert demo.process.wait(60) == 1
    assert words in demo.said
    assert "Traceback" not in demo.said


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
