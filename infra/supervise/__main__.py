"""`./justw run FLOW`: one process in our place; with --processes several, supervised as one.

Exit status: 0 stopped on request and drained; 78 an operator's error, shown once; 1 given up; else that of a process
that did not drain.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from connectors.stopping import EXIT_OPERATOR
from infra.duration import seconds
from infra.embedded.ports import free_port
from infra.supervise import layout
from infra.supervise.layout import Wish
from infra.supervise.member import Member
from infra.supervise.unit import Unit, of_all
from schemas.errors import OperatorError
from schemas.settings_file import load_settings

ROOT: Final = Path(__file__).resolve().parents[2]
TICK_SECS: Final = 0.2
STALLED_SECS_MAX: Final = 150.0  # longer than a statement of the database may take
SAME_WORDS_MAX: Final = 64


class Supervisor:
    """All units of one dataflow, until it is stopped or one of them is over."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self._signals = 0

    def run(self) -> int:
        """Run; the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._signalled)
        killed = False
        while any(unit.exit_code is None for unit in self._units):
            if self._signals or any(unit.exit_code is not None for unit in self._units):
                for unit in self._units:
                    unit.stop()
            for unit in self._units:
                unit.tick()
                if self._signals > 1 and not killed:
                    unit.kill()
            killed = self._signals > 1
            time.sleep(TICK_SECS)
        return of_all([unit.exit_code or 0 for unit in self._units])

    def _signalled(self, _number: int, _frame: object) -> None:
        self._signals += 1


class Voice:
    """What the processes and the supervisor say, a line at a time; what one has just said its siblings need not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: deque[tuple[str, str]] = deque(maxlen=SAME_WORDS_MAX)

    def __call__(self, name: str, words: str) -> None:
        with self._lock:
            if words.startswith("ionwax: "):
                if any(words == before and name != who for who, before in self._said):
                    return
                self._said.append((name, words))
            with suppress(OSError):  # nobody listens any more; the processes go on
                print(f"{name} | {words}", flush=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="./justw run",
        description="Run a dataflow with bytewax.run; what is not named here is passed on to it (-w 2).",
        allow_abbrev=False,
    )
    made.add_argument("flow", help="a module of dataflows: ingest, minute_rollups, …")
    made.add_argument("--settings", metavar="FILE", type=Path, default=ROOT / "infra" / "settings" / "dev.yaml")
    made.add_argument("--processes", metavar="N", type=int, help="so many, supervised; a share of the partitions each")
    made.add_argument("--cluster", action="store_true", help="as one Bytewax cluster instead")
    made.add_argument(
        "--addresses", metavar="A;B", default="", help="of the cluster's processes (free ones on loopback)"
    )
    made.add_argument(
        "--stalled-after", metavar="TIME", type=seconds, default=STALLED_SECS_MAX,
        help="without an epoch a process is started again (150s)",
    )  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    chosen, options = parser().parse_known_args(arguments)
    layout.check_flow(chosen.flow)
    addresses = tuple(filter(None, chosen.addresses.split(";")))
    wish = Wish(chosen.flow, chosen.settings.absolute(), chosen.processes or 1, chosen.cluster, addresses, options)
    if chosen.processes is None:
        if chosen.cluster or addresses:
            raise OperatorError("--cluster and --addresses go with --processes")
        os.execv(sys.executable, [sys.executable, *layout.alone(wish).argv])
    layout.check(wish, load_settings(wish.settings_path))
    return Supervisor(_units(wish, chosen.stalled_after)).run()


def _units(wish: Wish, stalled_secs_max: float) -> list[Unit]:
    say, environ = Voice(), _environment()

    def made(number: int) -> Unit:
        return Unit(_starter(wish, number, environ, say), stalled_secs_max, lambda words: say("supervisor", words))

    return [made(number) for number in range(1 if wish.cluster else wish.processes)]


def _starter(
    wish: Wish, number: int, environ: Mapping[str, str], say: Callable[[str, str], None]
) -> Callable[[], list[Member]]:
    def start() -> list[Member]:
        """Each time on free ports: those of the last run may be taken by now."""
        addresses = wish.addresses or [f"127.0.0.1:{free_port()}" for _ in range(wish.processes)]
        return [Member(process, environ, say) for process in layout.units(wish, addresses)[number]]

    return start


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    # Processes side by side are what scales; threads within them take from each other (FACTS: N processes).
    return {"POLARS_MAX_THREADS": "1", **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        print(f"ionwax: {error}", file=sys.stderr)
        sys.exit(EXIT_OPERATOR)
