"""`./justw migrate`: bring the database's tables to this version (``infra.migrations``)."""

import argparse
import sys
from collections.abc import Sequence

from connectors import timescale_connection
from infra.migrations import migrate
from infra.settings_option import add_settings_option, chosen_settings
from schemas.errors import OperatorError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw migrate", description=__doc__)
    add_settings_option(parser)
    conninfo = chosen_settings(parser.parse_args(arguments), "DATABASE_URL").database.conninfo
    applied = migrate(conninfo, say=lambda words: print(f"note: {words}"))
    for one in applied:
        print(f"applied {one.name}")
    if not applied:
        print(f"nothing to do: {timescale_connection.place(conninfo)} is as this version needs it")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"migrate: {error}")
