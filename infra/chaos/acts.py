"""The acts of the schedule, done: to processes by signals, to servers by their wires or by killing them."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infra.chaos.flows import Flow
from infra.chaos.relay import Wire
from infra.chaos.schedule import ALL, SERVERS, Act

CLAIMED_SECS_MAX: Final = 60.0


def of(target: str, group: Sequence[str]) -> Sequence[str]:
    """The members of ``group`` that an act's target means."""
    return group if target == ALL else [name for name in group if name == target]


@dataclass(frozen=True)
class Acts:
    """``wait`` lets some seconds pass in which flows that ended are started again, ``wait_until`` so many at most."""

    flows: Mapping[str, Flow]
    wires: Mapping[str, Mapping[str, Wire]]  # by flow and server
    restarts: Mapping[str, Callable[[], None]]
    wait: Callable[[float], None]
    wait_until: Callable[[Callable[[], bool], float], object]
    claims: Callable[[str], int]  # how often a flow's partitions were claimed

    def do(self, act: Act) -> None:
        """Do it, and undo what lasts: at the end all may work again."""
        getattr(self, f"_{act.kind}")(act)

    def _kill(self, act: Act) -> None:
        for name in of(act.target, tuple(self.flows)):
            self.flows[name].kill()
        self.wait(act.secs)
        for name in of(act.target, tuple(self.flows)):
            self.flows[name].start()

    def _freeze(self, act: Act) -> None:
        flows = [self.flows[name] for name in of(act.target, tuple(self.flows))]
        for flow in flows:
            flow.signal(signal.SIGSTOP)
        self.wait(act.secs)
        for flow in flows:
            flow.signal(signal.SIGCONT)

    def _replace(self, act: Act) -> None:
        """What is stopped looks dead to whoever watches it, so another is started."""
        flow = self.flows[act.target]
        flow.signal(signal.SIGSTOP)
        self._start_copy(act.target)
        self.wait(act.secs)
        flow.signal(signal.SIGCONT)
        self.wait(1.0)
        flow.kill_copy()

    def _kill_stalled(self, act: Act) -> None:
        """Between what is promised and what is durable there must be nothing that a kill can come into."""
        wire = self.wires[act.target]["kafka"]
        wire.stall_writes(True)
        self.wait(act.secs)
        self.flows[act.target].kill()
        wire.cut()
        wire.stall_writes(False)
        self.flows[act.target].start()

    def _cut(self, act: Act) -> None:
        for wire in self._to(act.target):
            wire.cut()

    def _stall(self, act: Act) -> None:
        for wire in self._to(act.target):
            wire.stall(True)
        self.wait(act.secs)
        for wire in self._to(act.target):
            wire.stall(False)

    def _refuse(self, act: Act) -> None:
        for wire in self._to(act.target):
            wire.refuse(True)
        self.wait(act.secs)
        for wire in self._to(act.target):
            wire.refuse(False)

    def _to(self, target: str) -> list[Wire]:
        """The wires of all flows to the servers that ``target`` means."""
        return [by_server[name] for by_server in self.wires.values() for name in of(target, SERVERS)]

    def _restart(self, act: Act) -> None:
        if (restart := self.restarts.get(act.target)) is None:
            self._refuse(act)
        else:
            restart()

    def _rescale(self, act: Act) -> None:
        flow = self.flows[act.target]
        flow.stop()
        flow.start(act.processes, act.workers)

    def _copy(self, act: Act) -> None:
        self._start_copy(act.target)
        self.wait(act.secs)
        self.flows[act.target].kill_copy()

    def _start_copy(self, name: str) -> None:
        """Start another, and give it the time to take over what the first has: on a busy machine that takes a while."""
        before = self.claims(name)
        self.flows[name].copy()
        if before:
            self.wait_until(lambda: self.claims(name) > before, CLAIMED_SECS_MAX)
