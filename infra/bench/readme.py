"""`./justw bench readme`: the README's table of figures, made from bench/*.json; each other bench ends with it.

Rule: no figure of the table is written by hand. What was never measured whole is left out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

from infra.bench.delivery_mqtt import OURS, STOCK
from infra.bench.delivery_rows import BARE
from infra.bench.delivery_rows import OURS as OUR_ROWS

ROOT: Final = Path(__file__).parents[2]
BEGIN: Final = "<!-- figures: ./justw bench readme -->\n"
END: Final = "<!-- end of figures -->\n"
Runs = Sequence[Mapping[str, float]]


class Row(NamedTuple):
    """What was measured, the figure, and what it is beside others measured in the same run."""

    what: str
    figure: str
    beside: str
    bench: str


def main(_argv: Sequence[str]) -> int:
    write()
    return 0


def write(root: Path = ROOT) -> None:
    """Put the table into the README, in place of the one there."""
    path = root / "README.md"
    text = path.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = before + BEGIN + table(root / "bench") + END + after
    if made != text:
        path.write_text(made, "utf-8")


def table(folder: Path) -> str:
    """The rows of every bench that has left a file in ``folder``."""
    lines = ["| | | beside | |", "|---|---|---|---|"]
    for bench, rows in (("windows", _windows), ("rollups", _rollups), ("delivery", _delivery)):
        path = folder / f"{bench}.json"
        if path.exists():
            lines += [f"| {' | '.join(row[:3])} | `bench {row.bench}` |" for row in rows(json.loads(path.read_text()))]
    return "\n".join(lines) + "\n"


def _windows(found: Any) -> Iterator[Row]:
    rates = {(case["group"], case["name"]): _rate(case["runs"], "readings") for case in found["cases"]}
    core = rates["The core alone, batches of 10,000 readings", "1,000 series"]
    yield Row("window core, 1,000 series, batches of 10,000", f"{_short(core)} readings/s", "", "windows")
    for series in ("1,000", "10,000"):
        group = f"In Bytewax, one worker, {series} series, items or batches of 10,000"
        ours, theirs = rates[group, "window core"], rates[group, "Bytewax `fold_window`"]
        beside = f"its `fold_window` {_short(theirs)}: {ours / theirs:.0f} times"
        yield Row(f"the same in Bytewax, {series} series", f"{_short(ours)} readings/s", beside, "windows")


def _rollups(found: Any) -> Iterator[Row]:
    for devices in dict.fromkeys(case["devices"] for case in found["cases"]):
        runs = {case["name"]: case["runs"] for case in found["cases"] if case["devices"] == devices}
        rates = {name: _rate(some, "readings") / 4 for name, some in runs.items()}
        for processes in ("1 process", "2 processes"):
            ours = f"`minute_rollups`, {processes}"
            cpu = median(run["cpu_secs"] / run["readings"] * 4e6 for run in runs[ours])
            peak = median(run["peak_mib"] for run in runs[ours])
            figure = f"{_short(rates[ours])} messages/s, {_short(4 * rates[ours])} readings/s"
            figure += f"; {cpu:.2f} CPU s a million messages; {peak:.0f} MiB a process"
            others = {name: rate for name, rate in rates.items() if "minute_rollups" not in name}
            beside = (f"{name} {_short(rate)}: {rates[ours] / rate:.0f} times" for name, rate in others.items())
            what = f"Kafka to PostgreSQL, {devices:,} devices, {processes}"
            yield Row(what, figure, "; ".join(beside) if processes == "1 process" else "", "rollups")


def _delivery(found: Any) -> Iterator[Row]:
    for part, source in (("server", "a server that replays"), ("mosquitto", "Mosquitto")):
        if runs := found.get(part):
            ours, theirs = _rate(runs[OURS], "messages"), _rate(runs[STOCK], "messages")
            beside = f"stock gmqtt, which drops them, {_short(theirs)}: {ours / theirs:.2f} times"
            yield Row(f"`ingest` from {source} into Kafka, durable", f"{_short(ours)} messages/s", beside, "delivery")
    if runs := found.get("rows"):
        ours, theirs = _rate(runs[OUR_ROWS], "messages"), _rate(runs[BARE], "messages")
        beside = f"bare `COPY BINARY` {_short(theirs)}: {ours / theirs:.2f} times"
        yield Row("rollup rows into PostgreSQL, with the books", f"{_short(ours)} rows/s", beside, "delivery")
    if latency := found.get("latency"):
        cuts = quantiles(latency["waits"], n=100)
        figure = f"p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s"
        yield Row("from publish to row, beyond the allowed lateness", figure, "", "delivery")
        yield Row("from kill -9 to caught up", f"{median(latency['recoveries']):.1f} s", "", "delivery")
    drained = [one["secs"] for one in found.get("stop", ()) if one["how"] == "drained"]
    if drained:
        yield Row("from SIGTERM to drained and ended, any dataflow", f"{max(drained):.2f} s at most", "", "delivery")


def _rate(runs: Runs, of: str) -> float:
    return median(run[of] / run["wall_secs"] for run in runs)


def _short(rate: float) -> str:
    """A rate in two or three digits: 8.5 M, 254 k."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.3g}"
