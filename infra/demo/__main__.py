"""`./justw demo`: starts it, shows it, stops it, and says how it ended.

Exit status: 0 it was stopped, or its time was over; 1 something failed, or the ledger does not balance.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from infra.demo import screen, view
from infra.demo.topology import Topology
from infra.demo.view import Banner
from infra.demo.wish import Wish
from infra.duration import seconds, spoken
from infra.fleet.plan import parse_faults
from infra.running import announced
from schemas.errors import OperatorError

COMMANDS = (
    "./justw publish boiler-7 temperature=21.5 --wait",
    './justw sql "select * from rollups_1m order by bucket desc limit 5"',
    "./justw notebook",
)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="./justw demo", description="The whole topology on this machine: embedded servers, dataflows, a fleet."
    )
    made.add_argument("--for", dest="for_secs", type=seconds, metavar="TIME", help="end by itself: 60s, 10m")
    made.add_argument("--history", type=seconds, default=600.0, metavar="TIME", help="what the fleet says first (10m)")
    made.add_argument("--devices", type=int, default=24, metavar="N", help="devices, each a message a second (24)")
    made.add_argument("--faults", default="all", metavar="LIST", help="what goes wrong: ./justw load --help (all)")
    made.add_argument("--seed", type=int, default=1, metavar="N", help="equal seeds measure and fail alike")
    made.add_argument("--record", type=Path, metavar="FILE", help="an exact record of what the fleet sent")
    made.add_argument(
        "--mqtt", metavar="URL", help="your own broker in place of the fleet; MQTT_USERNAME, MQTT_PASSWORD"
    )
    made.add_argument("--topic", metavar="TEMPLATE", help="what to listen to there: devices/{device_id}/telemetry")
    made.add_argument("--plain", action="store_true", help="lines instead of a live view")
    return made


def wish(chosen: argparse.Namespace) -> Wish:
    """What was asked for. Raises ``OperatorError`` where it makes no sense."""
    parse_faults(chosen.faults)
    if chosen.devices < 1:
        raise OperatorError("--devices: at least one")
    if chosen.topic and not chosen.mqtt:
        raise OperatorError("--topic goes with --mqtt: the demo's own fleet has a topic")
    if chosen.record and chosen.record.exists():
        raise OperatorError(f"{chosen.record} exists; a record is never written over: name another file")
    return Wish(
        devices=chosen.devices,
        history_secs=chosen.history,
        for_secs=chosen.for_secs,
        mqtt=chosen.mqtt,
        topic=chosen.topic,
        faults=chosen.faults,
        seed=chosen.seed,
        record=chosen.record,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    console = Console(force_terminal=False if chosen.plain else None, highlight=False)

    def say(name: str, words: str, when: str) -> None:
        screen.plain(console, f"  {name:<25} {words:<44} {when:>6}".rstrip() if name else f"  … {words}")

    topology = Topology(wish(chosen), say)
    _on_signals(topology)
    console.print("[bold cyan]ionwax demo[/]: the whole topology on this machine, gone when it ends")
    failure, banner = None, None
    try:
        with topology, announced(topology.addresses):
            banner = _banner(topology)
            screen.show(topology.watched, banner, console, _until(topology))
            screen.plain(console, "stopping …")
    except KeyboardInterrupt:
        screen.plain(console, "stopped before everything had started")
    except OperatorError as error:
        failure = error
    with suppress(OSError):  # a terminal that is gone
        return _farewell(topology, banner, console, failure)
    return 1


def _on_signals(topology: Topology) -> None:
    """The first signal ends the demo in order; one more, and what still stops is killed."""

    def told(_number: int, _frame: object) -> None:
        if topology.stopping or topology.asked_to_stop:
            topology.hurry = True
        elif topology.watch is None:  # still starting: wherever that is
            topology.asked_to_stop = True
            raise KeyboardInterrupt
        topology.asked_to_stop = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told)


def _until(topology: Topology) -> Callable[[], bool]:
    deadline = None if topology.wish.for_secs is None else time.monotonic() + topology.wish.for_secs

    def over() -> bool:
        topology.check()
        return topology.asked_to_stop or (deadline is not None and time.monotonic() >= deadline)

    return over


def _banner(topology: Topology) -> Banner:
    settings = topology.settings
    return Banner(
        servers=topology.described,
        commands=COMMANDS,
        table=settings.output.table,
        lateness_ms=round(settings.windows.allowed_lateness_secs * 1_000),
    )


def _farewell(topology: Topology, banner: Banner | None, console: Console, failure: OperatorError | None) -> int:
    figures = topology.watch.figures if topology.watch else None
    if figures and banner:
        with console.capture() as printed:
            console.print(view.summary(figures, banner, console.width))
        lines = (line.rstrip() for line in printed.get().splitlines())
        console.out("", *lines, "", sep="\n", highlight=False)
    balanced = not figures or not view.unexplained(figures)
    if failure:
        screen.plain(console, f"demo: {failure}")
        if topology.logs_kept:
            screen.plain(console, f"All logs are kept in {topology.data}")
    lasted = spoken(time.monotonic() - topology.started)
    screen.plain(console, f"ended after {lasted}; nothing of it is left running or listening")
    return 1 if failure or not balanced else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"demo: {error}")
