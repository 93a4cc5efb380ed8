"""Connections to PostgreSQL or TimescaleDB: what every one of them is set to, and what their errors mean.

Rule: nothing of a session outlives its transaction, so that PgBouncer may stand between in transaction mode: no
prepared statements, settings by ``set local``. No message names a secret.
"""

from typing import Any, Final, LiteralString

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from schemas.errors import OperatorError, ServerAway

Connection = psycopg.Connection[tuple[Any, ...]]

DEFAULTS: Final[dict[str, str | int]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,  # with the next two: a server that vanished is noticed within 25 s
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Where the operator's conninfo says nothing."""

IDLE_IN_TRANSACTION_SECS: Final = 60  # a writer that hangs in its transaction blocks a claim for so long at most
LOCK_SECS: Final = 30
CLAIM_LOCK_SECS: Final = IDLE_IN_TRANSACTION_SECS + 15  # until a hung writer's transaction has been ended
STATEMENT_SECS: Final = 120

GONE: Final = (
    psycopg.OperationalError,  # connection lost, server starting or stopping, resources, deadlock, timeouts
    errors.IdleInTransactionSessionTimeout,
    errors.ReadOnlySqlTransaction,  # a standby, about to be promoted
)
"""Errors of a database that is away or busy: a transaction that met one may be tried again as it was."""

UNREADABLE: Final = (
    "database.conninfo (or DATABASE_URL) cannot be read as a connection string, such as "
    "postgresql://user:password@host:5432/name. In it, write @ : / ? # % of a password as %40 %3A %2F %3F %23 %25, or "
    "leave the password to PGPASSWORD or a password file."
)  # and never what libpq says about it, which would quote the password


FULL_OR_STARTING: Final = ("starting up", "shutting down", "in recovery", "too many clients", "connection slots")
_LIBPQ_ASKS: Final = "Is the server running on that host and accepting TCP/IP connections?"


def connect(conninfo: str, application: str) -> Connection:
    """A connection in autocommit mode. Raises ``psycopg.OperationalError`` where the server cannot be reached."""
    given = read_conninfo(conninfo)
    missing: dict[str, Any] = {name: value for name, value in DEFAULTS.items() if name not in given}
    return psycopg.connect(
        conninfo,
        autocommit=True,
        prepare_threshold=None,
        client_encoding="utf8",
        fallback_application_name=application[:63],
        **missing,
    )


def connect_or_say(conninfo: str, application: str) -> Connection:
    """As ``connect``, for the start of a process: a server that cannot be reached is one message to the operator."""
    try:
        return connect(conninfo, application)
    except psycopg.OperationalError as error:
        raise unreachable(conninfo, error) from None


def read_conninfo(conninfo: str) -> dict[str, Any]:
    """The parameters of a connection string, those of the environment left out. Raises ``OperatorError``."""
    if "://" in conninfo:
        credentials_and_host, _, rest = conninfo.partition("://")[2].partition("?")[0].partition("/")
        if credentials_and_host.count("@") > 1 or "@" in rest:
            raise OperatorError(UNREADABLE)  # libpq would take a part of the password for a host, and print it
    try:
        return conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        raise OperatorError(UNREADABLE) from None


def place(conninfo: str) -> str:
    """Where a connection string leads, for messages: host, port and database, without user and password."""
    given = read_conninfo(conninfo)
    host = given.get("host") or given.get("hostaddr") or "the local socket"
    return f"{host}:{given.get('port') or 5432}/{given.get('dbname') or ''}"


def unreachable(conninfo: str, error: psycopg.Error) -> OperatorError:
    """The message for a database that does not let us in; what the server said is in it."""
    said = " ".join(str(error).split()).removesuffix(_LIBPQ_ASKS).rstrip(" .")
    password = read_conninfo(conninfo).get("password")
    if password:
        said = said.replace(str(password), "***")
    # To libpq all that happens before a session is one kind of error; what the server itself refuses begins with FATAL.
    passing = "FATAL" not in said or any(words in said for words in FULL_OR_STARTING)
    kind = ServerAway if passing else OperatorError
    return kind(f"The database at {place(conninfo)} cannot be used: {said}. See database.conninfo (DATABASE_URL).")


def begin(connection: Connection, lock_secs: int = LOCK_SECS) -> None:
    """Open a transaction that neither waits nor lasts without end."""
    limits: dict[LiteralString, int] = {
        "lock_timeout": lock_secs,
        "statement_timeout": STATEMENT_SECS,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_SECS,
    }
    settings = "; ".join(f"set local {name} = '{secs}s'" for name, secs in limits.items())
    # Revisions of rows in a columnstore have no limit but time; PostgreSQL without TimescaleDB takes no notice.
    columnstore = "set local timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
    connection.execute(f"begin; {settings}; {columnstore}".encode())  # one message, one round trip


def operator_error(error: psycopg.Error) -> OperatorError | None:
    """What an operator can do about an error of a statement; None where it is a programmer's."""
    said = (error.diag.message_primary or "").rstrip(".")
    if isinstance(error, errors.UndefinedTable | errors.UndefinedColumn | errors.UndefinedFunction):
        return OperatorError(f"The database lacks something this version needs ({said}): run ./justw migrate.")
    if isinstance(error, errors.InsufficientPrivilege):
        return OperatorError(f"The database user may not do this: {said}. Grant it, or use another user in conninfo.")
    return None
