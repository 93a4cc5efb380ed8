"""``./justw bench flags``: how calm flags are, what they find, and what a minute costs; writes bench/flags.md, .json.

Calm and found: a simulated fleet's history goes through the real engine with the rules of a file. Cost: minutes of many
series, in a process of its own. Rule: the healthy fleet is never made to fit the rules.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from dataflows.anomalies.rules import watches
from infra.bench import flags_calm
from infra.bench.case import Case, Result, run, timed
from infra.bench.flags_calm import Found, Told
from infra.bench.flags_fleet import READINGS, Fleet
from infra.bench.table import machine
from infra.fleet.signals import METRICS
from schemas.errors import OperatorError
from schemas.rules_file import load_rules

AIM_A_WEEK: Final = 1.0
FOLDER: Final = Path(__file__).parents[2] / "bench"
RULES: Final = Path(__file__).parents[1] / "settings" / "rules.yaml"


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code: 1 where the aim is missed, or something cannot be run."""
    parser = argparse.ArgumentParser(prog="./justw bench flags", description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1_000, help="healthy ones (1000)")
    parser.add_argument("--faulty", type=int, default=20, help="devices of each fault, beside them (20)")
    parser.add_argument("--days", type=int, default=14, help="of history (14)")
    parser.add_argument("--series", type=int, default=100_000, help="of the measurement of cost (100000)")
    parser.add_argument("--rules", type=Path, default=RULES, help="another file of rules")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where flags.md and flags.json go (bench/)")
    chosen = parser.parse_args(argv)
    fleet = Fleet(chosen.devices, chosen.faulty, chosen.days)
    try:
        rules = load_rules(chosen.rules)
        with timed() as clock:
            told = flags_calm.run(fleet, watches(rules.values()))
        cost = run(_cost(chosen.series, chosen.rules))
    except OperatorError as error:
        print(error, file=sys.stderr)
        return 1
    calm, found = flags_calm.calm(fleet, told, list(rules)), flags_calm.found(fleet, told)
    table = _markdown(fleet, calm, flags_calm.worst(fleet, told), found, cost, clock.cpu_secs)
    print(table)
    chosen.out.mkdir(exist_ok=True)
    (chosen.out / "flags.md").write_text(table)
    (chosen.out / "flags.json").write_text(_plain(fleet, told, calm, found, cost))
    return 0 if sum(calm.values()) <= AIM_A_WEEK else 1


def _cost(series: int, rules: Path) -> Case:
    arguments = {"series": series, "steps": 20, "rules": str(rules)}
    return Case("cost", f"{series:,} series", "infra.bench.flags_scale", "minutes", arguments)


def _markdown(
    fleet: Fleet, calm: dict[str, float], worst: float, found: Sequence[Found], cost: Result, cpu_secs: float
) -> str:
    minutes = f"{fleet.devices * fleet.minutes / 1e6:.1f} M device-minutes"
    size = (
        f"{fleet.healthy:,} healthy devices and {fleet.faulty} of each fault, {fleet.days} days, {len(METRICS)} metrics"
    )
    lines = [
        "# `./justw bench flags`",
        "",
        f"{machine()}; load {os.getloadavg()[0]:.1f} at the end.",
        f"{size}, {READINGS} readings a minute, through the real engine: {minutes} in {cpu_secs:.0f} CPU s.",
        "",
        "## Calm: episodes a healthy device and week",
        "",
        "| rule | episodes |",
        "|---|---|",
        *(f"| {name} | {rate:.3f} |" for name, rate in calm.items()),
        f"| all (aim: at most {AIM_A_WEEK:g}) | {sum(calm.values()):.3f} |",
        f"| the device that had most | {worst:.1f} |",
        "",
        "## Found: each device breaks once, in the fifth seventh of the history",
        "",
        "Delays are minutes from the fault to the first episode of the device; found is what was told within a day.",
        "Episodes are all of the device from its fault to the end of the history, other metrics and false alarms too.",
        "",
        "| fault | found | delay, median | longest | told by | one episode | opened | closed |",
        "|---|---|---|---|---|---|---|---|",
        *map(_row, found),
        "",
        "## Cost of a minute, one worker",
        "",
        f"{cost.note}.",
    ]
    return "\n".join(lines) + "\n"


def _row(one: Found) -> str:
    delays = one.delays_mins
    middle, longest = (f"{median(delays):g}", f"{delays[-1]}") if delays else ("", "")
    cells = (one.fault, f"{one.found} of {one.devices}", middle, longest, ", ".join(one.detectors))
    return f"| {' | '.join((*cells, f'{one.once} of {one.devices}', str(one.opened), str(one.closed)))} |"


def _plain(fleet: Fleet, told: Sequence[Told], calm: dict[str, float], found: Sequence[Found], cost: Result) -> str:
    """All of it, as JSON; of the episodes, each."""
    whole: dict[str, Any] = {
        "machine": machine(),
        "fleet": asdict(fleet),
        "calm": calm,
        "found": [asdict(one) for one in found],
        "cost": asdict(cost),
        "episodes": [[one.device, one.metric, one.detector, one.opened, one.closed] for one in told],
    }
    return json.dumps(whole, indent=1) + "\n"
