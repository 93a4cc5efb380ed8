"""The dataflows as processes of their own, and what keeps them going: one that ended is started again.

Rule: a process is signalled by its process id. What its end says is judged, too: a dataflow may stop with a message
(78, 75, 69), in order (0) or by our kill -9, and in no other way, and never with a traceback. None outlives chaos.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from connectors.stopping import EXIT_AWAY, EXIT_OPERATOR, EXIT_STUCK
from infra.chaos import bound

ROOT: Final = Path(__file__).resolve().parents[2]
ENDS: Final = (0, -signal.SIGKILL, EXIT_OPERATOR, EXIT_STUCK, EXIT_AWAY)
AGAIN_SECS: Final = 0.5  # before what ended by itself is started again
STOP_SECS_MAX: Final = 60.0  # the flow itself gives up after 10; a machine that is busy may take longer
LAUNCHER: Final = ("-m", "bytewax.run")
WRONG_WORDS: Final = ("Traceback (most recent call last)", "panicked at")
OVERRIDES: Final = ("MQTT_URL", "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")  # they would go round the wires


class Flow:
    """One dataflow: ``processes`` with a share of the partitions each, ``workers`` threads in each."""

    ends_allowed: Sequence[int] = ENDS

    def __init__(self, name: str, settings: Path, log: Path, launcher: Sequence[str] = LAUNCHER) -> None:
        self.name = name
        self.log = log
        self.ends: Counter[int] = Counter()  # exit status → how often
        self.starts = 0
        self.started_at = 0.0
        self._resident_bytes = 0  # of one process at most, since it was asked for
        self._settings = settings
        self._launcher = launcher
        self._processes, self._workers = 1, 1
        self._shares: list[subprocess.Popen[bytes]] = []
        self._copies: dict[int, subprocess.Popen[bytes]] = {}  # share → a second process for it
        self._held = True
        self._again_at = 0.0

    def start(self, processes: int = 1, workers: int = 1) -> None:
        """Start all of it, and from now on start again what ends."""
        self._processes, self._workers, self._held = processes, workers, False
        self._shares = [self._started(self._alone(share)) for share in range(processes)]

    @property
    def running(self) -> bool:
        """Whether any process of it lives."""
        return bool(self._alive())

    @property
    def statuses(self) -> list[int | None]:
        """The exit status of each share's process; None while it lives."""
        return [process.poll() for process in self._shares]

    def tend(self) -> None:
        """Start what ended by itself again; a copy takes the place of what it fenced off."""
        for share, process in enumerate(self._shares):
            if process.poll() is None:
                self._look_at(process.pid)
                continue
            copy = self._copies.pop(share, None)
            if copy is not None and copy.poll() is None:
                self._note(process)
                self._shares[share] = copy
            elif not self._held and time.monotonic() >= self._again_at:
                self._note(process)
                self._again_at = time.monotonic() + AGAIN_SECS
                self._shares[share] = self._started(self._alone(share))

    def signal(self, number: signal.Signals) -> None:
        for process in self._alive():
            process.send_signal(number)

    def kill(self) -> None:
        """As kill -9, all of it, for good."""
        self._held = True
        for process in self._alive():
            process.kill()
        self._end()

    def end(self) -> None:
        """Leave nothing of it running."""
        self.kill()

    def stop(self) -> list[int]:
        """Ask all of it to stop, in order; the exit statuses. What does not stop in time is killed and shows -9."""
        self._held = True
        for process in self._alive():
            process.terminate()
        return self._end()

    def copy(self) -> None:
        """Start another process for the first share."""
        self._copies[0] = self._started(self._alone(0))

    def kill_copy(self) -> None:
        for process in self._copies.values():
            process.kill()
            process.wait()
            self._note(process)
        self._copies.clear()

    def resident_mb(self) -> int:
        """The most that one process of it took since this was asked last; 0 where /proc does not tell."""
        taken, self._resident_bytes = self._resident_bytes, 0
        return taken // 2**20

    def wrongs(self) -> Iterator[str]:
        """What no end and no log may say."""
        for status, often in self.ends.items():
            if status not in self.ends_allowed:
                yield f"{self.name} ended with status {status}, {often} times"
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        for words in WRONG_WORDS:
            if words in said:
                begin = said.index(words)
                yield f"{self.name} ended with a traceback:\n{said[begin : begin + 2_000]}"

    def _alive(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in (*self._shares, *self._copies.values()) if process.poll() is None]

    def _end(self) -> list[int]:
        ends = []
        for process in (*self._shares, *self._copies.values()):
            try:
                process.wait(STOP_SECS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            ends.append(process.returncode)
            self._note(process)
        self._shares, self._copies = [], {}
        return ends

    def _note(self, process: subprocess.Popen[bytes]) -> None:
        self.ends[process.returncode] += 1

    def _look_at(self, pid: int) -> None:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return
        self._resident_bytes = max(self._resident_bytes, pages * resource.getpagesize())

    def _alone(self, share: int) -> Sequence[str]:
        """What follows ``python`` for the process of one share."""
        target = f"dataflows.{self.name}:flow('{self._settings}', '{share}/{self._processes}')"
        return [*self._launcher, target, "-s", "1", "-w", str(self._workers)]

    def _started(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        self.starts += 1
        self.started_at = time.monotonic()
        environment = {name: text for name, text in os.environ.items() if name not in OVERRIDES}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*bound_to_us(), sys.executable, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment | {"POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )


def bound_to_us() -> list[str]:
    """What stands before a command that is to end when we are killed."""
    return [sys.executable, "-I", "-S", str(Path(bound.__file__)), str(os.getpid())]
