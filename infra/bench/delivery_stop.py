"""From SIGTERM to the end of a process: drained with its servers there, and given up with one of them away.

A fleet publishes meanwhile, so each has something to drain. Away means that every connection is cut and each new one
ended at once; the process is asked to stop when it says that it waits, or has had the time to notice.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

import psycopg

from infra.chaos import flags
from infra.chaos.asking import Asking
from infra.chaos.flows import ROOT, Flow, bound_to_us
from infra.chaos.place import Place
from infra.chaos.relay import Relay, Wire
from infra.chaos.schedule import ARCHIVE, FLAGS, FLOWS
from infra.chaos.servers import ADDRESSES, own_database, own_topics, servers, wires
from infra.chaos.supervised import PROCESSES, Supervised
from infra.demo.doorstep import subscribe_ahead
from infra.migrations import migrate
from infra.supervise.watch import ask

RATE: Final = 200
ALONE, TOGETHER = "drained", f"drained, run --processes {PROCESSES}"
SERVERS_OF: Final = {
    "ingest": ("mqtt", "kafka"),
    "minute_rollups": ("kafka", "database"),
    ARCHIVE: ("kafka", "database"),
    FLAGS: ("kafka", "database"),  # MQTT only while an alert is due
}
READY_SECS_MAX: Final = 120.0
NOTICE_SECS_MAX: Final = 15.0
LOOK_SECS: Final = 0.05
_SERVES: Final = re.compile(r"metrics and health on (http://\S+)")


@dataclass(frozen=True)
class Stop:
    """How one process, or one supervisor with its processes, ended after SIGTERM."""

    flow: str
    how: str
    secs: float
    statuses: Sequence[int]


FlowOf = Callable[[str, bool], Flow]
WiresOf = dict[str, dict[str, Wire]]


def measured(repeat: int, folder: Path) -> list[Stop]:
    """Every flow in every way, ``repeat`` times."""
    with _place(folder) as (flow_of, wires_of, asking):
        return [
            stop
            for _ in range(repeat)
            for stop in (
                *_drained(flow_of, asking, ALONE),
                *_drained(flow_of, asking, TOGETHER),
                *_given_up(flow_of, asking, wires_of),
            )
        ]


def _drained(flow_of: FlowOf, asking: Asking, how: str) -> Iterator[Stop]:
    running = {name: flow_of(name, how == TOGETHER) for name in SERVERS_OF}
    for flow in running.values():
        flow.start(*([PROCESSES] if how == TOGETHER else []))
    for flow in running.values():
        _await_working(flow, asking, running.values())
    for flow in running.values():
        yield _stopped(flow, how)


def _given_up(flow_of: FlowOf, asking: Asking, wires_of: WiresOf) -> Iterator[Stop]:
    """One server of one flow at a time; the others go on, so that there is something to read."""
    running = {name: flow_of(name, False) for name in SERVERS_OF}
    for flow in running.values():
        flow.start()
    for name, flow in running.items():
        for server in SERVERS_OF[name]:
            _await_working(flow, asking, running.values())
            wires_of[name][server].refuse(True)
            _until(lambda flow=flow: _waits(flow), NOTICE_SECS_MAX)  # type: ignore[misc]
            yield _stopped(flow, f"{server} away")
            wires_of[name][server].refuse(False)
            flow.start()
    for flow in running.values():
        flow.stop()


def _stopped(flow: Flow, how: str) -> Stop:
    assert flow.running, f"{flow.name} ended by itself: {flow.log.read_text()[-500:]}"
    began = time.monotonic()
    statuses = flow.stop()
    return Stop(flow.name, how, time.monotonic() - began, statuses)


def _await_working(flow: Flow, asking: Asking, every: Iterable[Flow]) -> None:
    """Wait until it has got something done since it was started.

    ``every`` flow is started again where it has ended by itself: on a busy machine a start can find a server slow, and
    what reads its output would wait for nothing.
    """

    def tended(condition: Callable[[], object]) -> bool:
        for one in every:
            one.tend()
        return bool(condition())

    def serves() -> object:
        return _SERVES.search(flow.log.read_text(errors="replace"))

    assert _until(lambda: tended(serves), READY_SECS_MAX), f"{flow.name} begins"
    before = asking.done(flow.name)
    assert _until(lambda: tended(lambda: asking.done(flow.name) > before), READY_SECS_MAX), f"{flow.name} does nothing"


def _waits(flow: Flow) -> bool:
    """Whether the process says that it waits for a server."""
    try:
        return bool(ask(_SERVES.findall(flow.log.read_text(errors="replace"))[-1])["waiting"])
    except OSError:
        return False


def _until(condition: Callable[[], object], secs_max: float) -> bool:
    deadline = time.monotonic() + secs_max
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_SECS)
    return True


@contextmanager
def _place(folder: Path) -> Iterator[tuple[FlowOf, WiresOf, Asking]]:
    """Servers, tables, topics and a fleet; how to make a flow, and the wires by which each reaches its servers."""
    with ExitStack() as at_end:
        found = at_end.enter_context(servers(dict.fromkeys(ADDRESSES)))
        conninfo = at_end.enter_context(own_database(found.addresses["database"]))
        migrate(conninfo)
        relay = at_end.enter_context(Relay())
        place = Place(folder, f"stop-{uuid4().hex[:10]}")
        direct = place.written("direct", {**found.addresses, "database": conninfo})
        at_end.enter_context(own_topics(direct))
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("select create_rollup_table(%s)", [direct.output.table])
            flags.make_table(connection, direct)
        wires_of: WiresOf = {}
        for name in (*FLOWS, ARCHIVE, FLAGS):
            wires_of[name], seen = wires(relay, {**found.addresses, "database": conninfo})
            place.written(name, seen)
        numbers = count()

        def flow_of(name: str, supervised: bool) -> Flow:
            files = folder / f"{name}.yaml", folder / f"{name}-{next(numbers)}.log"
            made = Supervised(name, *files) if supervised else Flow(name, *files)
            at_end.callback(made.end)
            return made

        subscribe_ahead(direct.mqtt)
        command = [sys.executable, "-m", "infra.load", "--mqtt", direct.mqtt.url, "--topic", direct.mqtt.topic]
        fleet = subprocess.Popen(
            [*bound_to_us(), *command, "--rate", str(RATE), "--forever"], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        at_end.callback(fleet.wait)
        at_end.callback(fleet.kill)
        yield flow_of, wires_of, Asking(direct)
