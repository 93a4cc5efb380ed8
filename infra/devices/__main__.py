"""`./justw devices import FILE.csv`, `export`, `list [--site SITE]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.devices import lines, store
from infra.settings_option import add_settings_option, chosen_settings
from infra.sql import table
from schemas.errors import OperatorError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw devices", description="What people say of devices and metrics")
    actions = parser.add_subparsers(dest="action", required=True)
    taking = actions.add_parser(
        "import",
        help="bring the tables to what a CSV file says",
        description=lines.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    taking.add_argument("file", type=Path, metavar="FILE.csv")
    actions.add_parser("export", help="print all of it as a CSV file that import takes")
    listing = actions.add_parser("list", help="devices, as a table")
    listing.add_argument("--site")
    for one in actions.choices.values():
        add_settings_option(one)
    chosen = parser.parse_args(arguments)
    conninfo = chosen_settings(chosen, "DATABASE_URL").database.conninfo
    if chosen.action == "import":
        _import(conninfo, chosen.file)
    elif chosen.action == "export":
        lines.write(sys.stdout, *store.read(conninfo))
    else:
        _list(conninfo, chosen.site)
    return 0


def _import(conninfo: str, path: Path) -> None:
    devices, metrics = store.bring(conninfo, lines.read(path, store.timezones(conninfo)))
    for what, found in (("devices", devices), ("metrics", metrics)):
        print(f"{what}: {found.new} new, {found.changed} changed, {found.same} as they were")


def _list(conninfo: str, site: str | None) -> None:
    devices, _ = store.read(conninfo, site)
    header = ["device_id", *lines.DEVICE_COLUMNS, "labels"]
    rows = [
        [*(one[name] for name in header[:-1]), ", ".join(f"{name}={text}" for name, text in one["labels"].items())]
        for one in devices
    ]
    print(*table(header, rows), sep="\n")
    print("(1 device)" if len(rows) == 1 else f"({len(rows)} devices)")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"devices: {error}")
