"""One run: a fleet publishes, everything is broken by the schedule, all is drained, and the end is compared.

Whatever happens, nothing is left running, and no time is without an end.
"""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

import psycopg

from infra.chaos import comparison, flags, other_log
from infra.chaos.acts import Acts, of
from infra.chaos.asking import INGEST, Asking
from infra.chaos.flows import LAUNCHER, ROOT, Flow, bound_to_us
from infra.chaos.place import UNDISTURBED, WINDOWS, Place
from infra.chaos.relay import Relay, Wire
from infra.chaos.schedule import ALL, FLAGS, FLOWS, Act
from infra.chaos.servers import Servers, own_database, own_topics, wires
from infra.chaos.supervised import Supervised
from infra.demo.doorstep import subscribe_ahead
from infra.migrations import migrate
from infra.verify.__main__ import check
from schemas.settings import Settings

LOOK_SECS: Final = 0.1
WORKING_SECS_MAX: Final = 45.0  # how long an act waits for its target to work again
DRAINED_SECS_MAX: Final = 300.0
SLACK_SECS: Final = 120.0  # that a busy machine may take longer for the acts than twice the time
HISTORY_SECS: Final = 240.0  # sent first, where flags are looked at: no episode is shorter than a minute
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
    alerts: int = 0  # that were heard of the disturbed flags, repetitions included
    ends: dict[str, Counter[int]] = field(default_factory=dict)
    resident_mb: dict[str, list[int]] = field(default_factory=dict)  # of one process, before, during and after
    findings: list[str] = field(default_factory=list)


class Run:
    """``launcher`` starts a dataflow in place of ``-m bytewax.run``; ``say`` hears each step.

    ``supervised``, "shares" or "cluster", starts each by ``./justw run`` instead, in two processes.
    """

    def __init__(
        self,
        servers: Servers,
        folder: Path,
        *,
        rate: float = 60.0,
        names: Sequence[str] = FLOWS,
        launcher: Sequence[str] = LAUNCHER,
        supervised: str = "",
        say: Callable[[str], None] = print,
    ) -> None:
        self._servers = servers
        self._rate = rate
        self._names = names
        self._launcher = launcher
        self._supervised = supervised
        self._say = say
        self._place = Place(folder, f"chaos-{uuid4().hex[:10]}")
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
            self.settings = self._place.written("direct", direct)
            self._again = self._place.written(UNDISTURBED, direct, of=UNDISTURBED)
            self._flags_again = self._place.written(f"flags_{UNDISTURBED}", direct, flags=UNDISTURBED)
            self._asking = Asking(self.settings)
            for name in self._names:
                self._wires[name], seen = wires(relay, direct)
                self._place.written(name, seen)
                self._flows[name] = self._disturbed(name)
            at_end.enter_context(own_topics(self.settings, self._again, self._flags_again))
            for flow in self._flows.values():
                at_end.callback(flow.end)
            self._disturb(acts, for_secs, at_end)
            self._judge()
        return self._outcome

    def _disturbed(self, name: str) -> Flow:
        if not self._supervised:
            return self._flow(name, name)
        settings, log = self._files(name)
        return Supervised(name, settings, log, cluster=self._supervised == "cluster")

    def _flow(self, dataflow: str, settings: str) -> Flow:
        return Flow(dataflow, *self._files(settings), self._launcher)

    def _files(self, settings: str) -> tuple[Path, Path]:
        folder = self._place.folder
        return folder / f"{settings}.yaml", folder / f"{settings}.log"

    # While it is disturbed

    def _disturb(self, acts: Sequence[Act], for_secs: float, at_end: ExitStack) -> None:
        with psycopg.connect(self.settings.database.conninfo, autocommit=True) as connection:
            for settings in (self.settings, self._again):
                connection.execute("select create_rollup_table(%s)", [settings.output.table])
            for settings in (self.settings, self._flags_again):
                flags.make_table(connection, settings)
        subscribe_ahead(self.settings.mqtt)
        if FLAGS in self._names:
            self._listener = flags.Listener(self.settings, self._place.alerts)
            self._listener.subscribe()
        fleet = self._start_fleet(at_end)
        for flow in self._flows.values():
            flow.start()
        doing = Acts(
            self._flows, self._wires, self._servers.restarts, self._pass, self._tend_until, self._asking.claims
        )
        self._await_working(ALL)
        began = time.monotonic()
        self._tend_until(lambda: time.monotonic() >= began + (acts[0].at_secs if acts else 0.0), for_secs)
        self._weigh()
        for number, act in enumerate(acts):
            if time.monotonic() > began + 2 * for_secs + SLACK_SECS:
                self._outcome.left = len(acts) - number
                break
            self._tend_until(lambda due=began + act.at_secs: time.monotonic() >= due, for_secs)  # type: ignore[misc]
            self._await_working(act.target)
            self._say(f"{time.monotonic() - began:6.1f} s  {act}")
            doing.do(act)
            self._outcome.done[act.kind] += 1
        self._weigh()
        self._tend_until(lambda: time.monotonic() >= began + for_secs, for_secs)
        fleet.send_signal(signal.SIGTERM)
        self._tend_until(lambda: fleet.poll() is not None, 60.0)
        if fleet.returncode:
            self._outcome.findings.append(f"the fleet was not acknowledged everything:\n{self._fleet_log.read_text()}")
        self._drain(time.time_ns() // 1_000_000)

    def _start_fleet(self, at_end: ExitStack) -> "subprocess.Popen[bytes]":
        self._fleet_log = self._place.folder / "fleet.log"
        mqtt = self.settings.mqtt
        wanted = ["--rate", str(self._rate), "--record", str(self._place.record), "--faults", FAULTS, "--forever"]
        windows = ["--window", str(WINDOWS["length_secs"]), "--lateness", str(WINDOWS["allowed_lateness_secs"])]
        history = HISTORY_SECS if FLAGS in self._names else 0.0
        command = [sys.executable, "-m", "infra.load", "--history", f"{history:.0f}s"]
        with self._fleet_log.open("ab") as log:
            fleet = subprocess.Popen(
                [*bound_to_us(), *command, "--mqtt", mqtt.url, "--topic", mqtt.topic, *wanted, *windows],
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
            flow = self._flows[name]
            before = [self._asking.done(name), flow.starts]

            def works(name: str = name, flow: Flow = flow, before: list[int] = before) -> bool:
                if flow.starts != before[1]:
                    before[:] = [self._asking.done(name), flow.starts]
                return self._asking.done(name) > before[0]

            self._tend_until(works, WORKING_SECS_MAX)

    # At the end

    def _drain(self, now_ms: int) -> None:
        """Wait until every ingest worker has ticked beyond the fleet's end, everywhere, and no window of it is open."""
        workers = len(self.settings.mqtt.workers)
        quiet = now_ms + 1_000 * (WINDOWS["length_secs"] + WINDOWS["allowed_lateness_secs"] + 1)

        def drained() -> bool:
            rows = self._asking.rows("select ticks from progress where flow = %s", self.settings.flow.name)
            ticks = [ts for (row,) in rows for ts in row.values()]
            return len(ticks) == workers * self.settings.kafka.partitions and min(ticks) >= quiet

        self._expect(drained, "all is drained")
        ends = self._flows[INGEST].stop()
        for name in self._names[:0:-1]:  # the archive before those who ask it
            if name != FLAGS:
                self._expect_read(name)
        nothing_waits = "select count(*) from late_waiting"
        self._expect(lambda: self._asking.rows(nothing_waits) == [(0,)], "no late reading waits for the archive")
        if FLAGS in self._names:
            self._expect_read(FLAGS)
        ends += [end for name in self._names[1:] for end in self._flows[name].stop()]
        if set(ends) != {0}:
            self._outcome.findings.append(f"stopping in order ended with {ends}")
        self._weigh()

    def _expect(self, condition: Callable[[], object], what: str) -> None:
        if not self._tend_until(condition, DRAINED_SECS_MAX):
            self._outcome.findings.append(f"not within {DRAINED_SECS_MAX:.0f} s: {what}")

    def _expect_read(self, name: str) -> None:
        asking = self._asking
        self._expect(lambda: asking.position(name) == asking.log_end(name), f"{name} has read its log to the end")

    def _weigh(self) -> None:
        for name, flow in self._flows.items():
            self._outcome.resident_mb.setdefault(name, []).append(flow.resident_mb())

    def _judge(self) -> None:
        outcome = self._outcome
        outcome.ends = {flow.name: flow.ends for flow in self._flows.values()}
        log = self._flows["minute_rollups"].log.read_text(errors="replace")
        outcome.fenced = log.count("was claimed by another process")
        outcome.findings += [wrong for flow in self._flows.values() for wrong in flow.wrongs()]
        self._run_undisturbed("minute_rollups", self._again, UNDISTURBED)
        outcome.findings += [
            f"verify: {finding}" for finding in check(self.settings, deep=True, sent_path=self._place.record)
        ]
        outcome.findings += comparison.differences(self.settings, self._again)
        if FLAGS in self._names:
            self._judge_flags()
        outcome.findings += other_log.wrongs(self.settings, self._flow("minute_rollups", "direct"))
        (((outcome.rows, outcome.late),), ((outcome.sent,),)) = (
            self._asking.rows(f"select count(*), coalesce(sum(revision), 0) from {self.settings.output.table}"),
            self._asking.rows("select sum(messages) from ledger where flow = %s", self.settings.flow.name),
        )

    def _judge_flags(self) -> None:
        self._run_undisturbed(FLAGS, self._flags_again, f"flags_{UNDISTURBED}")
        alerts = self._listener.heard()
        self._outcome.alerts = len(alerts)
        self._outcome.findings += flags.differences(self.settings, self._flags_again, alerts)

    def _run_undisturbed(self, dataflow: str, again: Settings, settings: str) -> None:
        """The same log from its beginning, into tables of its own, with nothing broken."""
        flow, asking = self._flow(dataflow, settings), Asking(again)
        deadline = time.monotonic() + DRAINED_SECS_MAX
        flow.start()
        try:
            while not (read := asking.position(dataflow) == self._asking.position(dataflow)):
                if time.monotonic() >= deadline:
                    break
                flow.tend()
                time.sleep(LOOK_SECS)
        finally:
            flow.stop()
        if not read:
            self._outcome.findings.append(
                f"not within {DRAINED_SECS_MAX:.0f} s: undisturbed {dataflow} has read its log"
            )
