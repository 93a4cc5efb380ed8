"""One run: a fleet publishes, everything is broken by the schedule, all is drained, and the end is compared.

Whatever happens, nothing is left running, and no time is without an end.
"""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg
import yaml

from connectors.kafka import KafkaLog
from infra.chaos import comparison, other_log
from infra.chaos.acts import Acts, of
from infra.chaos.flows import LAUNCHER, ROOT, Flow
from infra.chaos.relay import Relay, Wire
from infra.chaos.schedule import ARCHIVE, FLOWS, Act
from infra.chaos.servers import Servers, own_database, own_topics, wires
from infra.demo.doorstep import subscribe_ahead
from infra.migrations import migrate
from infra.verify.__main__ import check
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.settings_file import load

LOOK_SECS: Final = 0.1
WORKING_SECS_MAX: Final = 30.0  # how long an act waits for its target to work again
DRAINED_SECS_MAX: Final = 180.0
SLACK_SECS: Final = 120.0  # that a busy machine may take longer for the acts than twice the time
UNDISTURBED: Final = "undisturbed"
WINDOWS: Final = {"length_secs": 4, "allowed_lateness_secs": 2, "quiet_secs": 2, "patience_secs": 30}
FAULTS: Final = "duplicate=0.05,disorder=0.1,late=0.05,broken=0.02,spike,fast-clock,repeat"


@dataclass
class Outcome:
    """What a run did, and what it found: nothing, if all is well."""

    done: Counter[str] = field(default_factory=Counter)  # kinds of acts
    left: int = 0  # acts there was no time for
    sent: int = 0
    rows: int = 0
    late: int = 0
    fenced: int = 0  # processes that found that another had claimed their partitions
    ends: dict[str, Counter[int]] = field(default_factory=dict)
    resident_mb: dict[str, int] = field(default_factory=dict)  # most of one process
    findings: list[str] = field(default_factory=list)


class Run:
    """``launcher`` starts a dataflow in place of ``-m bytewax.run``; ``say`` hears each step."""

    def __init__(
        self,
        servers: Servers,
        folder: Path,
        *,
        rate: float = 60.0,
        names: Sequence[str] = FLOWS,
        launcher: Sequence[str] = LAUNCHER,
        say: Callable[[str], None] = print,
    ) -> None:
        self._servers = servers
        self._folder = folder
        self._rate = rate
        self._names = names
        self._launcher = launcher
        self._say = say
        self._prefix = f"chaos-{uuid4().hex[:10]}"
        self._record = folder / "sent.jsonl"
        self._outcome = Outcome()
        self._wires: dict[str, dict[str, Wire]] = {}  # by flow and server
        self._flows: dict[str, Flow] = {}

    def run(self, acts: Sequence[Act], for_secs: float) -> Outcome:
        """Run to the end; raises ``OperatorError`` where a server cannot be used at all."""
        with ExitStack() as at_end:
            conninfo = at_end.enter_context(own_database(self._servers.addresses["database"]))
            direct = {**self._servers.addresses, "database": conninfo}
            migrate(conninfo)
            relay = at_end.enter_context(Relay())
            self.settings = self._written("direct", direct)
            self._again = self._written(UNDISTURBED, direct, of=UNDISTURBED)
            for name in self._names:
                self._wires[name], seen = wires(relay, direct)
                self._written(name, seen)
                self._flows[name] = self._flow(name, name)
            at_end.enter_context(own_topics(self.settings, self._again))
            for flow in self._flows.values():
                at_end.callback(flow.kill)
            self._disturb(acts, for_secs, at_end)
            self._judge()
        return self._outcome

    def _flow(self, dataflow: str, settings: str) -> Flow:
        return Flow(dataflow, self._folder / f"{settings}.yaml", self._folder / f"{settings}.log", self._launcher)

    def _written(self, name: str, addresses: Mapping[str, str], of: str = "disturbed") -> Settings:
        """A settings file of that name, with what is particular to the disturbed flow or the undisturbed one."""
        document = {
            "mqtt": {
                "url": addresses["mqtt"],
                "client_id": self._prefix,
                "topic": f"{self._prefix}/{{device_id}}/telemetry",
                "clients": 2,
                "share_name": self._prefix,
                "session_expiry_secs": 3_600,
                "keepalive_secs": 10,
            },
            "kafka": {
                "bootstrap_servers": addresses["kafka"],
                "partitions": 3,
                "events_topic": f"{self._prefix}.events",
                "dead_letter_topic": f"{self._prefix}.dead.{of}",
            },
            "database": {"conninfo": addresses["database"]},
            "windows": WINDOWS,
            "flow": {"name": of, "progress_every_secs": 1},
            "output": {"table": f"rollups_{of}", "topic": f"{self._prefix}.{of}"},
        }
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        path.chmod(0o600)  # the address of the database may hold a password
        return load(path, {})

    # While it is disturbed

    def _disturb(self, acts: Sequence[Act], for_secs: float, at_end: ExitStack) -> None:
        with psycopg.connect(self.settings.database.conninfo, autocommit=True) as connection:
            for settings in (self.settings, self._again):
                connection.execute("select create_rollup_table(%s)", [settings.output.table])
        subscribe_ahead(self.settings.mqtt)
        fleet = self._start_fleet(at_end)
        for flow in self._flows.values():
            flow.start()
        doing = Acts(self._flows, self._wires, self._servers.restarts, self._pass, self._tend_until, self._claims)
        began = time.monotonic()
        for number, act in enumerate(acts):
            if time.monotonic() > began + 2 * for_secs + SLACK_SECS:
                self._outcome.left = len(acts) - number
                break
            self._tend_until(lambda due=began + act.at_secs: time.monotonic() >= due, for_secs)  # type: ignore[misc]
            self._await_working(act.target)
            self._say(f"{time.monotonic() - began:6.1f} s  {act}")
            doing.do(act)
            self._outcome.done[act.kind] += 1
        self._tend_until(lambda: time.monotonic() >= began + for_secs, for_secs)
        fleet.send_signal(signal.SIGTERM)
        self._tend_until(lambda: fleet.poll() is not None, 60.0)
        if fleet.returncode:
            self._outcome.findings.append(f"the fleet was not acknowledged everything:\n{self._fleet_log.read_text()}")
        self._drain(time.time_ns() // 1_000_000)

    def _start_fleet(self, at_end: ExitStack) -> "subprocess.Popen[bytes]":
        self._fleet_log = self._folder / "fleet.log"
        mqtt = self.settings.mqtt
        wanted = ["--rate", str(self._rate), "--record", str(self._record), "--faults", FAULTS, "--forever"]
        windows = ["--window", str(WINDOWS["length_secs"]), "--lateness", str(WINDOWS["allowed_lateness_secs"])]
        with self._fleet_log.open("ab") as log:
            fleet = subprocess.Popen(
                [sys.executable, "-m", "infra.load", "--mqtt", mqtt.url, "--topic", mqtt.topic, *wanted, *windows],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        at_end.callback(fleet.wait)
        at_end.callback(fleet.kill)
        return fleet

    def _tend_until(self, condition: Callable[[], object], secs_max: float) -> bool:
        """Keep the flows going until the condition holds; False where it does not in time."""
        deadline = time.monotonic() + secs_max
        while not condition():
            if time.monotonic() >= deadline:
                return False
            for flow in self._flows.values():
                flow.tend()
            time.sleep(LOOK_SECS)
        return True

    def _pass(self, secs: float) -> None:
        until = time.monotonic() + secs
        self._tend_until(lambda: time.monotonic() >= until, secs + 1)

    def _await_working(self, target: str) -> None:
        """Wait for a flow that is to be disturbed to get something done since it was started: else little is shown."""
        for name in of(target, self._names):
            flow, looks = self._flows[name], self._looks(name)
            before = [looks(), flow.starts]

            def works(flow: Flow = flow, looks: Callable[[], int] = looks, before: list[int] = before) -> bool:
                if flow.starts != before[1]:
                    before[:] = [looks(), flow.starts]
                return looks() > before[0]

            self._tend_until(works, WORKING_SECS_MAX)

    def _looks(self, name: str) -> Callable[[], int]:
        """What grows while a flow works: offsets in the log, offsets accounted for."""
        return self._log_end if name == "ingest" else lambda: self._position(self._progress_name(name))

    def _progress_name(self, name: str) -> str:
        return self.settings.archive.name if name == ARCHIVE else self.settings.flow.name

    def _log_end(self) -> int:
        log = KafkaLog(self.settings.kafka, self.settings.kafka.events_topic, "ionwax-chaos")
        try:
            return sum(log.bounds(partition)[1] for partition in range(self.settings.kafka.partitions))
        except OperatorError:
            return -1

    def _position(self, flow: str) -> int:
        query = "select coalesce(sum(position), 0) from progress where flow = %s"
        return int((self._ask(query, flow) or [(0,)])[0][0])

    def _claims(self, name: str) -> int:
        query = "select coalesce(sum(generation), 0) from progress where flow = %s"
        return 0 if name == "ingest" else int((self._ask(query, self._progress_name(name)) or [(0,)])[0][0])

    def _ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows; none where the database is away."""
        try:
            with psycopg.connect(self.settings.database.conninfo, connect_timeout=2) as connection:
                return connection.execute(query.encode(), values).fetchall()
        except psycopg.OperationalError:
            return []

    # At the end

    def _drain(self, now_ms: int) -> None:
        """Wait until every ingest worker has ticked beyond the fleet's end, everywhere, and no window of it is open."""
        workers = len(self.settings.mqtt.workers)
        quiet = now_ms + 1_000 * (WINDOWS["length_secs"] + WINDOWS["allowed_lateness_secs"] + 1)

        def drained() -> bool:
            rows = self._ask("select ticks from progress where flow = %s", self.settings.flow.name)
            ticks = [ts for (row,) in rows for ts in row.values()]
            return len(ticks) == workers * self.settings.kafka.partitions and min(ticks) >= quiet

        if not self._tend_until(drained, DRAINED_SECS_MAX):
            self._outcome.findings.append(f"not drained within {DRAINED_SECS_MAX:.0f} s")
        ends = self._flows["ingest"].stop()
        for name in self._names[:0:-1]:  # the archive before those who ask it
            flow = self._progress_name(name)
            if not self._tend_until(lambda flow=flow: self._position(flow) == self._log_end(), DRAINED_SECS_MAX):  # type: ignore[misc]
                self._outcome.findings.append(f"{name} did not read the log to its end")
        if not self._tend_until(lambda: self._ask("select count(*) from late_waiting") == [(0,)], DRAINED_SECS_MAX):
            self._outcome.findings.append("late readings still wait for the archive")
        ends += [end for name in self._names[1:] for end in self._flows[name].stop()]
        if set(ends) != {0}:
            self._outcome.findings.append(f"stopping in order ended with {ends}")

    def _judge(self) -> None:
        outcome = self._outcome
        outcome.ends = {flow.name: flow.ends for flow in self._flows.values()}
        outcome.resident_mb = {flow.name: flow.resident_bytes_max // 2**20 for flow in self._flows.values()}
        log = self._flows["minute_rollups"].log.read_text(errors="replace")
        outcome.fenced = log.count("was claimed by another process")
        outcome.findings += [wrong for flow in self._flows.values() for wrong in flow.wrongs()]
        self._run_undisturbed()
        outcome.findings += [
            f"verify: {finding}" for finding in check(self.settings, deep=True, sent_path=self._record)
        ]
        outcome.findings += comparison.differences(self.settings, self._again)
        outcome.findings += other_log.wrongs(self.settings, self._flow("minute_rollups", "direct"))
        (((outcome.rows, outcome.late),), ((outcome.sent,),)) = (
            self._ask(f"select count(*), coalesce(sum(revision), 0) from {self.settings.output.table}"),
            self._ask("select sum(messages) from ledger where flow = %s", self.settings.flow.name),
        )

    def _run_undisturbed(self) -> None:
        """The same log from its beginning, into a table of its own, with nothing broken."""
        flow = self._flow("minute_rollups", UNDISTURBED)
        query = "select count(*), sum(position) from progress where flow = %s"

        def read() -> bool:
            ours, theirs = (self._ask(query, one.flow.name) for one in (self.settings, self._again))
            return ours == theirs

        flow.start()
        try:
            deadline = time.monotonic() + DRAINED_SECS_MAX
            while not read() and time.monotonic() < deadline:
                flow.tend()
                time.sleep(LOOK_SECS)
        finally:
            flow.stop()
