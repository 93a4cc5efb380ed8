"""The questions of ``infra/timescale/queries.sql``: read by name, with psql's variables as parameters of psycopg."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

QUERIES: Final = Path(__file__).parent / "timescale" / "queries.sql"
_PART: Final = re.compile(r"^-- name: (\w+)\n-- (.*)\n((?:.+\n)+)", re.MULTILINE)
_VARIABLE: Final = re.compile(r":'(\w+)'")


@dataclass(frozen=True, slots=True)
class Query:
    """One question. ``sql`` takes its ``parameters`` (device, metric, site) by name, as ``%(device)s``."""

    name: str
    question: str
    sql: str

    @property
    def parameters(self) -> set[str]:
        return set(re.findall(r"%\((\w+)\)s", self.sql))


def read_queries(path: Path = QUERIES) -> Sequence[Query]:
    """In the order of the file."""
    found = _PART.findall(path.read_text())
    return [
        Query(name, question, _VARIABLE.sub(r"%(\1)s", sql).strip().removesuffix(";")) for name, question, sql in found
    ]
