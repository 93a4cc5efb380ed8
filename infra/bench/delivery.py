"""`./justw bench delivery`: from MQTT to Kafka, acknowledged when durable; rollups into PostgreSQL; how long it takes.

Rule: what is compared is run in turn, several times over, each in a process of its own; ratios are of medians. Both are
said: of the clock (two cores are shared with servers and devices) and of CPU.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from infra.bench import delivery_latency, delivery_mqtt, delivery_rows, delivery_stop
from infra.bench.delivery_latency import Measured
from infra.bench.delivery_mqtt import FUTURE, OURS, OURS_BY_GMQTT, STOCK, Run
from infra.bench.table import machine
from infra.embedded import mosquitto
from infra.embedded.kafka import KafkaBroker
from infra.embedded.unprivileged import account_if_root, temporary_directory
from schemas.errors import OperatorError

FOLDER: Final = Path(__file__).parents[2] / "bench"
SERVER, QUEUE, ROWS, LATENCY, STOP = "server", "mosquitto", "rows", "latency", "stop"
PARTS: Final = (SERVER, QUEUE, ROWS, LATENCY, STOP)
RECEIVERS: Final = (STOCK, FUTURE, OURS, OURS_BY_GMQTT)
Runs = Mapping[str, Sequence[Run]]


def main(arguments: Sequence[str]) -> int:
    chosen = _parser().parse_args(arguments)
    folder = temporary_directory(account_if_root())
    lines, plain = [], {}
    try:
        for part in chosen.only or PARTS:
            said, data = _MEASURES[part](chosen, folder)
            lines += said
            plain[part] = data
            print("\n".join(said), flush=True)
    except (OperatorError, AssertionError) as error:
        print(f"bench delivery: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not chosen.only:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "delivery.md").write_text("\n".join([*_head(chosen), *lines]) + "\n")
        (FOLDER / "delivery.json").write_text(json.dumps({"machine": machine(), **plain}, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="./justw bench delivery", description="Measure, and write bench/delivery.md")
    made.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each (3); medians are shown")
    made.add_argument("--messages", type=int, default=1_000_000, metavar="N", help="a run (1,000,000)")
    made.add_argument("--rate", type=int, default=500, metavar="N", help="messages a second, for latency (500)")
    made.add_argument("--secs", type=int, default=60, metavar="N", help="of latency (60)")
    made.add_argument("--only", action="append", choices=PARTS, help="this part; writes nothing")
    return made


def _head(chosen: argparse.Namespace) -> list[str]:
    command = f"--repeat {chosen.repeat} --messages {chosen.messages} --rate {chosen.rate} --secs {chosen.secs}"
    return [
        "# `./justw bench delivery`",
        "",
        f"{machine()}. {command}.",
        "Compare within a part: the machine may be busy.",
    ]


def _in_turn(kinds: Sequence[str], repeat: int, run: Callable[[str], Run]) -> Runs:
    runs: dict[str, list[Run]] = {kind: [] for kind in kinds}
    for _ in range(repeat):
        for kind in kinds:
            runs[kind].append(run(kind))
            print(f"{kind}: {_rate(runs[kind][-1])}", file=sys.stderr, flush=True)
    return runs


def _from_server(chosen: argparse.Namespace, folder: Path) -> tuple[list[str], Any]:
    return _into_kafka(
        "MQTT QoS 1, from a server that replays", delivery_mqtt.replayed, chosen.messages, chosen.repeat, folder
    )


def _from_mosquitto(chosen: argparse.Namespace, folder: Path) -> tuple[list[str], Any]:
    if mosquitto.program() is None:
        return ["", "## MQTT QoS 1, from Mosquitto", "", "Left out: Mosquitto is not installed here."], None
    messages = max(chosen.messages // 4, 1)
    return _into_kafka("MQTT QoS 1, from Mosquitto", delivery_mqtt.queued, messages, chosen.repeat, folder)


def _into_kafka(
    title: str, measure: Callable[[str, int, str, Path], Run], messages: int, repeat: int, folder: Path
) -> tuple[list[str], Any]:
    broker = KafkaBroker(folder / "kafka")
    broker.start()
    try:
        runs = _in_turn(RECEIVERS, repeat, lambda kind: measure(kind, messages, broker.bootstrap_servers, folder))
    finally:
        broker.stop()
        broker.erase()
    return _table(title, "messages", runs, STOCK), _plain(runs)


def _rows(chosen: argparse.Namespace, folder: Path) -> tuple[list[str], Any]:
    kinds = (delivery_rows.BARE, delivery_rows.OURS)
    runs = _in_turn(kinds, chosen.repeat, lambda kind: delivery_rows.written(kind, folder))
    return _table("Rollup rows into PostgreSQL", "rows", runs, delivery_rows.BARE), _plain(runs)


def _latency(chosen: argparse.Namespace, folder: Path) -> tuple[list[str], Any]:
    found: Measured = delivery_latency.measured(chosen.rate, chosen.secs, chosen.repeat, folder)
    cuts = quantiles(found.waits, n=100)
    recoveries = ", ".join(f"{secs:.1f}" for secs in found.recoveries)
    said = [
        "",
        f"## How long it takes, at {chosen.rate} messages a second",
        "",
        f"- from publish to row, beyond the allowed lateness: p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s "
        f"({len(found.waits):,} rows; ticks come each second)",
        f"- from kill -9 of both dataflows to caught up, started again at once: {recoveries} s",
    ]
    return said, asdict(found)


def _stop(chosen: argparse.Namespace, folder: Path) -> tuple[list[str], Any]:
    stops = delivery_stop.measured(chosen.repeat, folder)
    lines = [
        "",
        f"## From SIGTERM to the end, at {delivery_stop.RATE} messages a second",
        "",
        "| | | median s | longest s | statuses |",
        "|---|---|---|---|---|",
    ]
    for flow, how in dict.fromkeys((one.flow, one.how) for one in stops):
        some = [one for one in stops if (one.flow, one.how) == (flow, how)]
        secs = [one.secs for one in some]
        statuses = ", ".join(map(str, sorted({status for one in some for status in one.statuses})))
        lines.append(f"| `{flow}` | {how} | {median(secs):.2f} | {max(secs):.2f} | {statuses} |")
    return lines, [asdict(one) for one in stops]


def _table(title: str, unit: str, runs: Runs, base: str) -> list[str]:
    lines = ["", f"## {title}", "", f"| | {unit}/s | ratio | a CPU second | ratio |", "|---|---|---|---|---|"]
    walls = {kind: median(run.messages / run.wall_secs for run in some) for kind, some in runs.items()}
    cpus = {kind: median(run.messages / run.cpu_secs for run in some) for kind, some in runs.items()}
    for kind in runs:
        wall, cpu = walls[kind], cpus[kind]
        ratios = f"{wall / walls[base]:.2f}", f"{cpu / cpus[base]:.2f}"
        lines.append(f"| {kind} | {wall / 1e3:.0f} k | {ratios[0]} | {cpu / 1e3:.0f} k | {ratios[1]} |")
    return lines


def _plain(runs: Runs) -> dict[str, Any]:
    return {kind: [asdict(run) for run in some] for kind, some in runs.items()}


def _rate(run: Run) -> str:
    return f"{run.messages / run.wall_secs / 1e3:.0f} k/s, {run.messages / run.cpu_secs / 1e3:.0f} k a CPU second"


_MEASURES: Final = {SERVER: _from_server, QUEUE: _from_mosquitto, ROWS: _rows, LATENCY: _latency, STOP: _stop}
