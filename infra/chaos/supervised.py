"""A dataflow as it is run for real: ``./justw run FLOW --processes N``, as shares or as one cluster.

Processes are killed and frozen behind the supervisor's back, which is to put that right by itself. Each third time it
is the supervisor that is killed, with kill -9: its keepers let what it leaves behind drain, while its successor starts.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from infra.chaos.flows import AGAIN_SECS, ENDS, Flow
from infra.supervise.unit import EXIT_GAVE_UP

PROCESSES: Final = 2
LOOK_SECS: Final = 1.0
KILLS_OF_PROCESSES: Final = 2  # before the supervisor is the one that is killed


class Supervised(Flow):
    """``start`` of it is that of a supervisor; where one lives it is left alone."""

    # It gives up after twenty failures in a row, which chaos makes; asked to stop before it has begun, it just ends.
    ends_allowed = (*ENDS, EXIT_GAVE_UP, -signal.SIGTERM)

    def __init__(self, name: str, settings: Path, log: Path, *, cluster: bool = False) -> None:
        super().__init__(name, settings, log)
        self._cluster = cluster
        self._kills = 0
        self._look_at_all = 0.0

    def start(self, processes: int = PROCESSES, workers: int = 1) -> None:
        self._held = False
        if not self._supervisor_lives():
            self._processes, self._workers = processes, workers
            self._shares = [self._started(self._supervisor())]

    def tend(self) -> None:
        now = time.monotonic()
        if self._supervisor_lives():
            if now >= self._look_at_all:
                self._look_at_all = now + LOOK_SECS
                for pid in self._dataflows():
                    self._look_at(pid)
        elif self._shares and not self._held and now >= self._again_at:
            self._note(self._shares[0])
            self._again_at = now + AGAIN_SECS
            self._shares = [self._started(self._supervisor())]

    def signal(self, number: signal.Signals) -> None:
        for pid in self._dataflows():
            _send(pid, number)
        for copy in self._copies.values():
            copy.send_signal(number)

    def kill(self) -> None:
        self._kills += 1
        if self._kills % (KILLS_OF_PROCESSES + 1) == 0:
            super().kill()
            return
        for pid in self._dataflows():
            _send(pid, signal.SIGKILL)
        self.kill_copy()

    def end(self) -> None:
        below = self._below()
        super().kill()
        for pid in below:
            _send(pid, signal.SIGKILL)

    def _supervisor_lives(self) -> bool:
        return bool(self._shares) and self._shares[0].poll() is None

    def _supervisor(self) -> list[str]:
        cluster = ["--cluster"] if self._cluster and self._processes > 1 else []
        settings = ["--settings", str(self._settings), "--processes", str(self._processes)]
        return ["-m", "infra.supervise", self.name, *settings, *cluster, "-w", str(self._workers)]

    def _below(self) -> dict[int, list[str]]:
        """All that runs below the supervisor: command lines by process id."""
        import psutil  # of the tests' packages, which the rest of infra does without

        found: dict[int, list[str]] = {}
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(self._shares[0].pid).children(recursive=True) if self._supervisor_lives() else []
            for process in below:
                with suppress(psutil.Error):
                    found[process.pid] = process.cmdline()
        return found

    def _dataflows(self) -> list[int]:
        """Its processes of the dataflow, keepers left out."""
        return [pid for pid, words in self._below().items() if words[1:3] == ["-m", "bytewax.run"]]


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.kill(pid, number)
