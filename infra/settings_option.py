"""Which settings a command works with: the same answer for every command.

The file is the one given, else that of the newest running demo. Addresses are, in this order, those of the
environment, those of the running demo (where no file was given), those of the file.
"""

import argparse
import os
from pathlib import Path

from infra import running
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.settings_file import OVERRIDES, load


def add_settings_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings", metavar="FILE", type=Path, help="settings file (default: those of the demo that runs here)"
    )


def chosen_settings(options: argparse.Namespace, *addresses: str) -> Settings:
    """The settings; ``addresses`` (DATABASE_URL, …) are those the command needs. Raises ``OperatorError``.

    Of a file given, secrets of servers that the command does not speak to may be missing.
    """
    if options.settings is not None:
        return load(options.settings, os.environ, {OVERRIDES[name][0] for name in OVERRIDES.keys() - {*addresses}})
    try:
        found = running.find(*addresses)
    except OperatorError as error:
        raise OperatorError(f"{error}, or give --settings FILE") from None
    return load(found.get(running.SETTINGS, Path(__file__).parent / "settings" / "demo.yaml"), {**os.environ, **found})
