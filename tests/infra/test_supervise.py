"""Several processes of one dataflow, run as one: watched, started again, stopped, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.stopping import EXIT_OPERATOR
from infra.demo.doorstep import subscribe_ahead
from infra.fleet import record
from infra.fleet.plan import Plan, parse_faults
from infra.fleet.run import now_ms, run_fleet
from infra.supervise import layout
from infra.supervise.backoff import FAILURES_MAX, STEADY_SECS, WAIT_SECS_MAX, WAIT_SECS_MIN, Backoff
from infra.supervise.layout import Process, Wish
from infra.supervise.member import Member
from infra.supervise.unit import Unit, of_all
from infra.supervise.watch import waits
from infra.verify.__main__ import check
from schemas.errors import OperatorError
from schemas.settings import KafkaSettings, MqttSettings, Settings
from tests.topology import Topology, topology, wait_for

ROOT = Path(__file__).parents[2]
DEADLINE_SECS = 120.0

chances = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(failures=st.integers(min_value=1, max_value=FAILURES_MAX), chance=chances, other=chances)
def test_waits_grow_and_stay_bounded(failures: int, chance: float, other: float) -> None:
    """At least half of what stands, at most all of it; never shorter than half the wait before."""
    wait_secs = Backoff(failures).wait_secs(chance)
    assert WAIT_SECS_MIN / 2 <= wait_secs <= WAIT_SECS_MAX
    assert Backoff(failures + 1).wait_secs(other) >= wait_secs / 2


def test_a_steady_run_is_forgiven_and_a_row_of_failures_ends() -> None:
    """What fails once a day is started again for ever; what never comes up is not."""
    backoff = Backoff()
    for _ in range(FAILURES_MAX - 1):
        backoff = backoff.after(lasted_secs=1)
    assert not backoff.exhausted
    assert backoff.after(lasted_secs=1).exhausted
    assert backoff.after(lasted_secs=STEADY_SECS) == Backoff(1)


def test_independent_processes_take_shares_and_a_cluster_is_one() -> None:
    """As one would type it: python -m bytewax.run …"""
    wish = Wish("minute_rollups", Path("prod.yaml"), processes=2, options=["-w", "3"])
    assert [
        [["-m", "bytewax.run", f"dataflows.minute_rollups:flow('prod.yaml', '{n}/2')", "-s", "1", "-w", "3"]]
        for n in range(2)
    ] == [[process.argv for process in unit] for unit in layout.units(wish, [])]
    (unit,) = layout.units(Wish("ingest", Path("prod.yaml"), processes=2, cluster=True), ["a:1", "b:2"])
    assert [
        ["-m", "bytewax.run", "dataflows.ingest:flow('prod.yaml')", "-s", "1", "-i", str(n), "-a", "a:1;b:2"]
        for n in range(2)
    ] == [process.argv for process in unit]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish("minute_rollups", Path(), processes=5), "kafka.partitions is 4"),
        (Wish("ingest", Path(), processes=3), "mqtt.clients is 2"),
        (Wish("ingest", Path(), processes=0), "at least one"),
        (Wish("ingest", Path(), processes=1, cluster=True), "at least two"),
        (Wish("ingest", Path(), processes=2, addresses=["a:1", "b:2"]), "go with --cluster"),
        (Wish("ingest", Path(), processes=2, cluster=True, addresses=["a:1"]), "2 of them"),
        (Wish("ingest", Path(), processes=2, options=["-i", "1"]), "-i is for one process"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(wish: Wish, said: str) -> None:
    """Before anything is started."""
    settings = Settings(kafka=KafkaSettings(partitions=4), mqtt=MqttSettings(clients=2))
    with pytest.raises(OperatorError, match=said):
        layout.check(wish, settings)


def test_only_dataflows_can_be_run() -> None:
    """The message names them."""
    with pytest.raises(OperatorError, match=r"no dataflow minutes; there are .*ingest, .*minute_rollups"):
        layout.check_flow("minutes")


def test_a_process_that_waits_for_a_server_does_not_hang() -> None:
    """As long as it said it would; JSON has no infinity, so no end is null."""
    wait = {"secs": 30.0, "at_most_secs": 600.0}
    assert waits({"waiting": {"the database": wait}})
    assert waits({"waiting": {"the MQTT broker": {**wait, "at_most_secs": None}}})
    assert not waits({"waiting": {"the database": {**wait, "secs": 601.0}}})
    assert not waits({"waiting": {}})


def test_exit_statuses_decide_whether_a_start_more_is_worth_it(tmp_path: Path) -> None:
    """A server that was away, a crash and an end that nobody asked for are; an operator's error is final."""
    program = (
        "import sys; from pathlib import Path; starts = Path('starts'); n = len(starts.read_text()); "
        "starts.write_text('x' * (n + 1)); sys.exit([69, 1, 0, 78][n])"
    )
    (tmp_path / "starts").write_text("")
    said: list[str] = []

    def start() -> list[Member]:
        in_folder = f"import os; os.chdir({str(tmp_path)!r}); {program}"
        return [Member(Process("one", ["-c", in_folder]), os.environ, lambda _name, words: said.append(words))]

    unit = Unit(start, stalled_secs_max=DEADLINE_SECS, say=said.append)
    deadline = time.monotonic() + DEADLINE_SECS
    while unit.exit_code is None:
        unit.tick()
        assert time.monotonic() < deadline, said
        time.sleep(0.01)

    assert unit.exit_code == EXIT_OPERATOR
    assert (tmp_path / "starts").read_text() == "xxxx"
    ends = [words for words in said if not words.startswith("starting again")]
    assert ends == ["one ended with code 69", "one ended with code 1", "one ended, though nobody asked it to"]


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 0), 0), ((0, 137), 137), ((75, 69), 69), ((69, 137), 69), ((69, 78, 137), 78)]
)
def test_of_several_statuses_the_one_counts_that_says_what_to_do(codes: tuple[int, ...], expected: int) -> None:
    """An operator's error, a server that is away; what else ended may have ended by that."""
    assert of_all(codes) == expected


@dataclass
class Supervised:
    """A supervisor, and what it said so far."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def dataflows(self) -> list[psutil.Process]:
        """Its processes of bytewax.run, keepers left out."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in below if one.name().startswith("python") and "bytewax.run" in one.cmdline()]

    def await_ready(self, times: int) -> None:
        """Until so many processes were ready, those that were replaced included."""
        wait_for(lambda: self.said.count("supervisor: ready") >= times, f"ready {times} times", lambda: self.said)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECS)


@contextmanager
def supervised(flows: Topology, flow: str, *options: str) -> Iterator[Supervised]:
    log = flows.folder / f"supervisor-{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.supervise", flow, "--settings", str(flows.settings_path), *options],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield Supervised(process, log)
    finally:
        process.kill()  # its keepers end what is left
        process.wait()


@pytest.mark.embedded
@pytest.mark.contract
@pytest.mark.long
def test_killed_and_frozen_processes_are_replaced_and_the_table_is_right(
    tmp_path: Path, kafka_bootstrap: str, database_url: str, mqtt_url: str
) -> None:
    """Two ingests with a share of the clients each, a cluster of two rollups; kill -9, SIGSTOP, fleets meanwhile."""
    clients = {"mqtt": {"clients": 2}}
    with topology(tmp_path, kafka_bootstrap, database_url, mqtt_url, **clients) as flows:
        subscribe_ahead(flows.settings.mqtt)
        with (
            supervised(flows, "ingest", "--processes", "2") as ingest,
            supervised(flows, "minute_rollups", "--processes", "2", "--cluster", "--stalled-after", "15s") as rollups,
        ):
            ingest.await_ready(2)
            rollups.await_ready(2)
            tell(flows, 1)
            ingest.dataflows()[0].kill()
            rollups.dataflows()[0].kill()
            tell(flows, 2)
            ingest.await_ready(3)
            rollups.await_ready(4)
            rollups.dataflows()[1].suspend()
            tell(flows, 3)
            rollups.await_ready(6)
            assert "no epoch has ended for" in rollups.said
            wait_for(lambda: settled(flows), "all is accounted for", flows.state)
            assert (ingest.stop(), rollups.stop()) == (0, 0), ingest.said + rollups.said
        for n in (1, 2, 3):
            assert [] == list(check(flows.settings, deep=True, sent_path=flows.folder / f"{n}.jsonl"))


def tell(flows: Topology, n: int) -> None:
    """A fleet's four minutes of the past, recorded."""
    plan = Plan(
        start_ms=now_ms() - 600_000, seed=n, devices_per_user=12, rate=12, for_secs=0, history_secs=240,
        faults=parse_faults("duplicate=0.05,disorder=0.05"), topic=flows.topic,
    )  # fmt: skip
    tally = run_fleet(flows.settings.mqtt.url, plan, flows.folder / f"{n}.jsonl")
    assert tally.unanswered == tally.refused == 0


def settled(flows: Topology) -> bool:
    """Whether all that was told is in the log and closed.

    A broker may deliver twice, so there may be more messages. What a fleet sent twice may be there once: where a killed
    ingest had appended the first, the second comes again as DUP, and is known.
    """
    told = {
        (sent.topic, sent.payload)
        for path in flows.folder.glob("[0-9].jsonl")
        for sent in record.read(path)
        if sent.acked_at is not None
    }
    with psycopg.connect(flows.settings.database.conninfo) as connection:
        row = connection.execute(
            "select coalesce(sum(messages + refused), 0), coalesce(sum(open), 0) from ledger"
        ).fetchone()
    assert row is not None
    return bool(row[0] >= len(told) and row[1] == 0)


@pytest.mark.embedded
def test_an_operators_error_is_shown_once_and_final(
    tmp_path: Path, kafka_bootstrap: str, database_url: str, mqtt_url: str
) -> None:
    """A start more would not mend it; its two processes do not say it twice."""
    with topology(tmp_path, kafka_bootstrap, database_url, mqtt_url) as flows:
        with psycopg.connect(database_url) as connection:
            connection.execute("drop table late_readings cascade")
        with supervised(flows, "minute_rollups", "--processes", "2") as rollups:
            assert rollups.process.wait(DEADLINE_SECS) == EXIT_OPERATOR
        assert rollups.said.count("run ./justw migrate") == 1
        assert "starting again" not in rollups.said


@pytest.mark.embedded
def test_nothing_outlives_the_supervisor(
    tmp_path: Path, kafka_bootstrap: str, database_url: str, mqtt_url: str
) -> None:
    """Killed by kill -9, its processes drain and end; a frozen one, at a second signal, is killed."""
    with topology(tmp_path, kafka_bootstrap, database_url, mqtt_url) as flows:
        with supervised(flows, "minute_rollups", "--processes", "2") as rollups:
            rollups.await_ready(2)
            left = rollups.dataflows()
            assert len(left) == 2
            rollups.process.kill()
            rollups.process.wait()
            wait_for(lambda: not any(map(runs, left)), "no process is left")
        with supervised(flows, "minute_rollups", "--processes", "2") as rollups:
            rollups.await_ready(2)
            left = rollups.dataflows()
            left[0].suspend()
            rollups.process.send_signal(signal.SIGINT)
            wait_for(lambda: not runs(left[1]), "the other one has drained")
            assert rollups.stop(signal.SIGINT) == 128 + signal.SIGKILL
            assert not any(map(runs, left))


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_without_processes_the_command_becomes_bytewax(tmp_path: Path) -> None:
    """No supervisor in between: signals, exit codes and process ids are the dataflow's."""
    wrong = tmp_path / "settings.yaml"
    wrong.write_text("mqtt: {clientz: 2}\n")
    command = [sys.executable, "-m", "infra.supervise", "ingest", "--settings", str(wrong)]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_OPERATOR
    assert "mqtt.clientz: no such setting" in ended.stderr
    assert "supervisor" not in ended.stdout + ended.stderr
