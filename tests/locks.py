"""Reads what pyproject.toml declares and what the requirements*.lock files pin; for the tests of the house.

Rule: shares nothing with ``infra.lock``, which writes the locks.
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# Lock → the group that it installs; "runtime" are the project's own dependencies.
LOCKS = {
    "requirements.lock": "runtime",
    "requirements-embedded.lock": "embedded",
    "requirements-test.lock": "test",
    "requirements-notebook.lock": "notebook",
    "requirements-peers.lock": "peers",
    "requirements-uv.lock": "uv",
}
ALONE = {"peers", "uv"}  # groups that are installed without the runtime


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


GROUPS = ["runtime", *pyproject()["dependency-groups"]]


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(group: str) -> list[Requirement]:
    """What a group asks for, included groups and, unless it stands alone, the runtime in it."""
    wanted = [] if group in ALONE else list(pyproject()["project"]["dependencies"])
    pending = [] if group == "runtime" else [group]
    while pending:
        for entry in pyproject()["dependency-groups"][pending.pop()]:
            if isinstance(entry, str):
                wanted.append(entry)
            else:
                pending.append(entry["include-group"])
    return [Requirement(text) for text in wanted]


def declared(group: str) -> set[str]:
    """The names of a group's distributions."""
    return {canonical(requirement.name) for requirement in required(group)}


@cache
def pinned(lock: str) -> dict[Requirement, list[str]]:
    """Each pin of a lock, with its marker, and its hashes."""
    pins: dict[Requirement, list[str]] = {}
    for line in (ROOT / lock).read_text("utf-8").splitlines():
        text = line.rstrip("\\").strip()
        if text.startswith("--hash="):
            pins[list(pins)[-1]].append(text.removeprefix("--hash="))
        elif text and not text.startswith("#"):
            pins[Requirement(text)] = []
    return pins
