"""`./justw bench NAME [--repeat N] [--only TEXT]`: measure, print the table, and write it to bench/."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Final

from infra.bench import readme
from infra.bench.case import Case, Result, run
from infra.bench.table import markdown, plain
from schemas.errors import OperatorError

BENCHES: Final = {"windows": "infra.bench.windows"}
# Benches with arguments of their own: main(argv).
_ALONE: Final = ("anomalies", "delivery", "flag_state", "flags", "readme", "rollups", "store")
COMMANDS: Final = {name: f"infra.bench.{name}" for name in _ALONE}
FOLDER: Final = Path(__file__).parents[2] / "bench"


def main() -> int:
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        status = int(importlib.import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:]))
        readme.write()
        return status
    parser = argparse.ArgumentParser(prog="./justw bench", description="Measure, and write bench/NAME.md and .json")
    parser.add_argument("name", choices=sorted({*BENCHES, *COMMANDS}), help="what to measure")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each case (3); medians are shown")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only parts whose heading holds this; writes nothing"
    )
    chosen = parser.parse_args()
    cases: list[Case] = importlib.import_module(BENCHES[chosen.name]).cases()
    cases = [case for case in cases if chosen.only in case.group]
    try:
        results = measure(cases, max(chosen.repeat, 1))
    except OperatorError as error:
        print(error, file=sys.stderr)
        return 1
    table = markdown(chosen.name, results)
    print(table)
    if not chosen.only:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{chosen.name}.md").write_text(table)
        (FOLDER / f"{chosen.name}.json").write_text(plain(results))
        readme.write()
    return 0


def measure(cases: list[Case], repeat: int) -> dict[Case, list[Result]]:
    """Run each group's cases in turn, ``repeat`` times over."""
    results: dict[Case, list[Result]] = {case: [] for case in cases}
    for group in dict.fromkeys(case.group for case in cases):
        for _ in range(repeat):
            for case in cases:
                if case.group == group:
                    results[case].append(run(case))
                    print(f"{group}: {case.name}: {results[case][-1].rate / 1e6:.2f} M/s", file=sys.stderr)
    return results


if __name__ == "__main__":
    sys.exit(main())
