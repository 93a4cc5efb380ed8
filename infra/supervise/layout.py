"""Which processes a dataflow is run as: pure, from what was asked for to command lines.

Two ways. *Independent* processes take a share of the partitions (or MQTT clients) each; one that fails is started again
alone. A *cluster* is one Bytewax dataflow over several processes; it lives and dies as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import OperatorError
from schemas.settings import Settings

DATAFLOWS: Final = Path(__file__).resolve().parents[2] / "dataflows"
OURS: Final = ("-i", "--process-id", "-a", "--addresses", "-p", "--processes")


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for. ``addresses`` are of a cluster's processes, none for free ones on loopback."""

    flow: str
    settings_path: Path
    processes: int = 1
    cluster: bool = False
    addresses: Sequence[str] = ()
    options: Sequence[str] = ()  # for bytewax.run


@dataclass(frozen=True, slots=True)
class Process:
    """One process: what it is called in the log, and what follows ``python``."""

    name: str
    argv: Sequence[str]


def check(wish: Wish, settings: Settings) -> None:
    """Raise ``OperatorError`` where the wish makes no sense."""
    if wish.processes < 1:
        raise OperatorError("--processes: at least one")
    if (wish.addresses or wish.cluster) and wish.processes < 2:
        raise OperatorError("--cluster: of at least two --processes")
    if wish.addresses and not wish.cluster:
        raise OperatorError("--addresses go with --cluster: independent processes do not speak to each other")
    if wish.addresses and len(wish.addresses) != wish.processes:
        raise OperatorError(f"--addresses: {wish.processes} of them, one a process, with ; between")
    if taken := [option for option in wish.options if option.partition("=")[0] in OURS]:
        raise OperatorError(f"{taken[0]} is for one process; --processes says it for all of them")
    ingest = wish.flow == "ingest"
    there, what = (settings.mqtt.clients, "mqtt.clients") if ingest else (settings.kafka.partitions, "kafka.partitions")
    if wish.processes > there:
        raise OperatorError(f"--processes {wish.processes}: {what} is {there}, so some would have nothing to do")


def units(wish: Wish, addresses: Sequence[str]) -> list[list[Process]]:
    """The processes, by what has to be started and stopped together. ``addresses`` are a cluster's."""
    numbers = range(wish.processes)
    if wish.cluster:
        cluster = ";".join(addresses)
        return [[_process(wish, f"{n}", ["-i", str(n), "-a", cluster], ()) for n in numbers]]
    shares = [f"{n}/{wish.processes}" for n in numbers]
    return [[_process(wish, share, [], (share,))] for share in shares]


def alone(wish: Wish) -> Process:
    """The one process without a supervisor."""
    return _process(wish, "", [], ())


def _process(wish: Wish, name: str, options: Sequence[str], more: Sequence[str]) -> Process:
    arguments = ", ".join(repr(one) for one in (str(wish.settings_path), *more))
    target = f"dataflows.{wish.flow}:flow({arguments})"
    argv = ["-m", "bytewax.run", target, "-s", "1", *options, *wish.options]
    return Process(f"{wish.flow} {name}".rstrip(), argv)


def check_flow(flow: str) -> None:
    """Raise ``OperatorError`` where there is no such dataflow; its name is a module of ``dataflows``."""
    known = sorted(path.stem for path in DATAFLOWS.glob("*.py") if "\ndef flow(" in path.read_text("utf-8"))
    if flow not in known:
        raise OperatorError(f"there is no dataflow {flow}; there are {', '.join(known)}")
