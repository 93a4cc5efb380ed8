"""Migrations: how the database's tables come to this version.

A migration is a numbered SQL file, ``infra/timescale/0001_what_it_does.sql``, applied once, in order, each in a
transaction of its own, under a lock, and remembered with its checksum. Guarantee: at any moment, killed or run twice
at once, a migration has been applied wholly or not at all. An applied file that was changed, or is missing here, is
refused: what it did cannot be known. To change a table, add a file.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg.errors import Diagnostic

from connectors import timescale_connection
from connectors.timescale_connection import Connection
from schemas.errors import OperatorError

MIGRATIONS: Final = Path(__file__).parent / "timescale"
LOCK: Final = 0x696F_6E77_6178  # "ionwax": advisory locks are numbers of the whole database
LOCK_SECS: Final = 60


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file. Its checksum does not depend on the line ends of the checkout."""

    number: int
    name: str
    sql: bytes

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


def migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The migrations in a folder, ascending. Raises ``OperatorError`` where names or numbers are wrong."""
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("[0-9]*.sql")):
        number, _, name = path.stem.partition("_")
        if not number.isdigit() or not name:
            raise OperatorError(f"{path.name}: a migration's file is named like 0007_what_it_does.sql.")
        one = Migration(int(number), path.name, path.read_bytes().replace(b"\r\n", b"\n"))
        if (other := found.setdefault(one.number, one)) is not one:
            raise OperatorError(f"{other.name} and {one.name} have one number: renumber the one not applied yet.")
    return [found[number] for number in sorted(found)]


def migrate(conninfo: str, folder: Path = MIGRATIONS, say: Callable[[str], None] = lambda _: None) -> list[Migration]:
    """Apply what is missing; answers with what was applied. ``say`` hears the notices that migrations raise.

    Raises ``OperatorError``.
    """
    wanted = migrations(folder)
    applied: list[Migration] = []
    with timescale_connection.connect_or_say(conninfo, "ionwax migrate") as connection:
        connection.add_notice_handler(lambda notice: _pass_on(notice, say))
        try:
            while (next_one := _apply_next(connection, wanted)) is not None:
                applied.append(next_one)
        except psycopg.errors.LockNotAvailable:
            raise OperatorError(
                f"Another migration has been running for {LOCK_SECS} s: wait for it, then run again."
            ) from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise OperatorError(f"This database user may not make tables: {error.diag.message_primary}.") from None
    return applied


def _pass_on(notice: Diagnostic, say: Callable[[str], None]) -> None:
    """Say what a migration says to people; the server's own remarks (a table exists already) have another code."""
    if notice.severity_nonlocalized == "NOTICE" and notice.sqlstate == "00000":
        say(notice.message_primary or "")


def _apply_next(connection: Connection, wanted: Sequence[Migration]) -> Migration | None:
    """Apply the lowest migration that is missing, with its note, in one transaction."""
    with connection.transaction():
        connection.execute(f"set local lock_timeout = '{LOCK_SECS}s'".encode())
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        connection.execute("set local lock_timeout = 0")
        missing = _missing(wanted, _applied(connection))
        if not missing:
            return None
        one = missing[0]
        try:
            connection.execute(one.sql)
        except psycopg.Error as error:
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise
            raise OperatorError(
                f"{one.name} failed, nothing of it was applied: {' '.join(str(error).split())}"
            ) from None
        connection.execute(
            "insert into schema_migrations (number, name, checksum) values (%s, %s, %s)",
            [one.number, one.name, one.checksum],
        )
        return one


def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    """Number → name and checksum of every applied migration."""
    connection.execute(
        "create table if not exists schema_migrations (number int primary key, name text not null, "
        "checksum text not null, applied_at timestamptz not null default now())"
    )
    rows = connection.execute("select number, name, checksum from schema_migrations").fetchall()
    return {number: (name, checksum) for number, name, checksum in rows}


def _missing(wanted: Sequence[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    """What is to be applied; refuses a history that is not the beginning of ``wanted``."""
    by_number = {one.number: one for one in wanted}
    for number, (name, checksum) in sorted(applied.items()):
        if number not in by_number:
            raise OperatorError(
                f"{name} was applied to this database and is missing here: this checkout is older than the database, "
                "or the file was deleted. Use the newer version, or restore the file."
            )
        if by_number[number].checksum != checksum:
            raise OperatorError(
                f"{by_number[number].name} was changed after it was applied to this database (as {name}). "
                "Restore the file, and put the change into a new migration."
            )
    missing = [one for one in wanted if one.number not in applied]
    if missing and applied and missing[0].number < max(applied):
        raise OperatorError(
            f"{missing[0].name} comes before migrations that are applied already (newest: {max(applied):04}). "
            f"Give it a higher number."
        )
    return missing
