"""Debian's PgBouncer in transaction mode, before whatever server a test was given, with few connections to share."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from infra.embedded.child import Command
from infra.embedded.server import Server
from infra.embedded.unprivileged import account_if_root

POOL_SIZE = 2  # fewer than clients: one that keeps something of its session meets another there


def program() -> str | None:
    """Where it is installed; Debian has it in a directory that users' paths do not name."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class PgBouncer(Server):
    """``databases`` are the names that clients ask for, and where each leads, as which user."""

    title = "PgBouncer"
    version = ""

    def __init__(self, data: Path, databases: Mapping[str, str]) -> None:
        super().__init__(data)
        self._databases = databases

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def conninfo(self, database: str) -> str:
        return make_conninfo(host="127.0.0.1", port=self.port, user="anyone", dbname=database)

    def command(self) -> Command:
        found = program()
        assert found is not None, "a test that needs it skips where it is not"
        account = account_if_root()
        ini = self.data / "pgbouncer.ini"
        ini.write_text(self._ini())
        ini.chmod(0o600)
        if account is not None:
            os.chown(ini, account.uid, account.gid)
        return Command(self.title, [found, str(ini)], self.data, self.log, account=account)

    def answers(self) -> bool:
        try:
            with psycopg.connect(self.conninfo(next(iter(self._databases))), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _ini(self) -> str:
        lines = ["[databases]"]
        for name, conninfo in self._databases.items():
            given = conninfo_to_dict(conninfo)
            parts = {key: given[key] for key in ("host", "port", "dbname", "user", "password") if given.get(key)}
            lines.append(f"{name} = " + " ".join(f"{key}='{value}'" for key, value in parts.items()))
        lines += [
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = any",
            "pool_mode = transaction",
            f"default_pool_size = {POOL_SIZE}",
            "max_client_conn = 200",
        ]
        return "\n".join([*lines, ""])
