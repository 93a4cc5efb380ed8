"""What a case is, what it answers, and how it is run: in a process of its own, by `python -m infra.bench.case`."""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.errors import OperatorError

RUN_SECS_MAX: Final = 900


@dataclass
class Clock:
    """Wall and CPU seconds of the stretch that counts, this process's children included."""

    wall_secs: float = 0.0
    cpu_secs: float = 0.0


@contextmanager
def timed() -> Iterator[Clock]:
    """Time the block; what comes before it (making data, starting servers) does not count."""
    clock = Clock()
    cpu, wall = _cpu_secs(), time.perf_counter()
    yield clock
    clock.wall_secs = time.perf_counter() - wall
    clock.cpu_secs = _cpu_secs() - cpu


def _cpu_secs() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def memory_mib(what: str, process: str = "self") -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of a process. Not ``ru_maxrss``: a child inherits it at the fork."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0


@dataclass(frozen=True)
class Result:
    """One run of a case."""

    readings: int
    wall_secs: float
    cpu_secs: float
    peak_mib: float = 0.0
    note: str = ""

    @property
    def rate(self) -> float:
        """Readings a second."""
        return self.readings / self.wall_secs

    @property
    def cpu_rate(self) -> float:
        """Readings a second of CPU: what a case that computes all the time would reach on an idle core."""
        return self.readings / self.cpu_secs


@dataclass(frozen=True)
class Case:
    """A row of the table: a function of a module of this package and its arguments.

    ``base`` names the row (``name`` and group) that the ratio is to; rows of one group are run in turn.
    """

    group: str
    name: str
    module: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    base: bool = False

    def __hash__(self) -> int:
        return hash((self.group, self.name))


def run(case: Case) -> Result:
    """Run a case once, alone in a process, on one Polars thread. Raises ``OperatorError`` where it fails."""
    command = [sys.executable, "-m", "infra.bench.case", case.module, case.function, json.dumps(dict(case.arguments))]
    environment = os.environ | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=RUN_SECS_MAX, check=False)
    if done.returncode:
        raise OperatorError(f"{case.group}, {case.name} failed: {done.stderr.strip().splitlines()[-1:]}")
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    module, function, arguments = sys.argv[1:]
    measure: Callable[..., Result] = getattr(importlib.import_module(module), function)
    result = measure(**json.loads(arguments))
    print(json.dumps(asdict(result) | {"peak_mib": result.peak_mib or memory_mib("VmHWM")}))


if __name__ == "__main__":
    main()
