"""A migrated database with a login of each role."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from infra.migrations import migrate
from tests.databases import fresh_database


@dataclass
class Logins:
    """Users of a writer's and a reader's rights, and of none but to make databases."""

    owner: str
    writer: str
    reader: str


@contextmanager
def fresh_logins(admin_url: str) -> Iterator[Logins]:
    """A fresh database, migrated by its owner, and a login of each role."""
    name = f"u{uuid.uuid4().hex[:10]}"
    with fresh_database(admin_url) as owner, psycopg.connect(admin_url, autocommit=True) as admin:
        migrate(owner)
        urls = {}
        for role in ("writer", "reader"):
            user = sql.Identifier(f"{name}_{role}")
            of = sql.Identifier(f"ionwax_{role}")
            admin.execute(sql.SQL("create role {} login password 'of-a-test' in role {}").format(user, of))
            urls[role] = make_conninfo(owner, user=f"{name}_{role}", password="of-a-test")
        try:
            yield Logins(owner, urls["writer"], urls["reader"])
        finally:
            for role in urls:
                admin.execute(sql.SQL("drop role {}").format(sql.Identifier(f"{name}_{role}")))
