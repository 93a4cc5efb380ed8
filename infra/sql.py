"""`./justw sql "select …"`: ask the database, and read the answer as a table.

Rule: it changes nothing unless `--write` is said. Statements may be several, separated by semicolons; each answers in
turn.
"""

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TextIO

import psycopg
from psycopg import errors

from connectors import timescale_connection
from infra.settings_option import add_settings_option, chosen_settings
from schemas.errors import OperatorError

CELL_CHARS_MAX: Final = 60  # of a value in a table; --csv cuts nothing
NUMBERS: Final = (int, float, Decimal)
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_ENDS: Final = re.compile(r"(?:^|;)\s*(?:commit|end|rollback|abort|prepare\s+transaction)\b", re.IGNORECASE)


def ask(conninfo: str, query: str, out: TextIO, write: bool = False, as_csv: bool = False, rows_max: int = 100) -> None:
    """Run ``query`` and print its answers. Raises ``OperatorError`` with what the database said."""
    if not write and _ENDS.search(_COMMENT.sub(" ", query)):
        raise OperatorError("that would end the transaction that cannot change anything; add --write if it is meant.")
    with timescale_connection.connect_or_say(conninfo, "ionwax sql") as connection:
        if not write:
            connection.execute("begin read only")  # not by a setting of the session, which PgBouncer gives to others
        try:
            cursor = connection.execute(query.encode())
            while True:
                _print_answer(cursor, out, as_csv, rows_max)
                if not cursor.nextset():
                    break
        except errors.ReadOnlySqlTransaction:
            raise OperatorError("that would change the database; add --write if it is meant.") from None
        except psycopg.Error as error:
            raise OperatorError(str(error).rstrip()) from None  # its lines: one marks the place in the one before it


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a table: columns as wide as they need, numbers to the right."""
    cells = [[shown(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [bool(rows) and all(row[i] is None or _is_number(row[i]) for row in rows) for i in range(len(header))]

    def line(parts: Iterable[str]) -> str:
        return "  ".join(
            part.rjust(width) if to_right else part.ljust(width)
            for part, width, to_right in zip(parts, widths, right, strict=True)
        ).rstrip()

    return [line(header), "  ".join("─" * width for width in widths), *map(line, cells)]


def shown(value: Any) -> str:
    """A value as a person reads it: instants in UTC, doubles with at most ten digits, long text cut."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (
            value.astimezone(UTC)
            .isoformat(" ", "milliseconds" if value.microsecond else "seconds")
            .replace("+00:00", "Z")
        )
    text = " ".join(str(value).split("\n"))
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 1] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, NUMBERS) and not isinstance(value, bool)


def _print_answer(cursor: psycopg.Cursor[tuple[Any, ...]], out: TextIO, as_csv: bool, rows_max: int) -> None:
    if cursor.description is None:
        print(cursor.statusmessage or "done", file=out)
        return
    header = [column.name for column in cursor.description]
    if as_csv:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(header)
        rows.writerows(cursor)
        return
    found = cursor.fetchmany(rows_max) if rows_max else cursor.fetchall()
    print(*table(header, found), sep="\n", file=out)
    left = cursor.rowcount - len(found)
    count = "1 row" if cursor.rowcount == 1 else f"{cursor.rowcount} rows"
    print(f"({count}, {left} not shown: --rows 0 shows all)" if left else f"({count})", file=out)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw sql", description=__doc__)
    parser.add_argument("query", help='such as "select * from rollups_1m order by bucket desc limit 10"')
    parser.add_argument("--write", action="store_true", help="let the query change the database")
    parser.add_argument("--csv", action="store_true", help="print values as they are, separated by commas")
    parser.add_argument("--rows", type=int, default=100, metavar="N", help="rows of a table to show at most; 0: all")
    add_settings_option(parser)
    chosen = parser.parse_args(arguments)
    ask(
        chosen_settings(chosen, "DATABASE_URL").database.conninfo,
        chosen.query,
        sys.stdout,
        chosen.write,
        chosen.csv,
        chosen.rows,
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"sql: {error}")
