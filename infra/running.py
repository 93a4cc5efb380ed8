"""The demos that are running here: what `./justw publish` and `./justw sql` speak to when nobody says where.

A demo writes its addresses into a file of its own and holds a lock on it for as long as it lives; a file whose lock is
free was left behind by one that was killed, and counts for nothing: a demo is found as long as it runs, and no longer.

Guarantee: of several, the newest that still runs is found; what the environment names comes before any.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from infra.embedded.cache import cache_directory
from schemas.errors import OperatorError

ADDRESSES: Final = ("MQTT_URL", "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
SETTINGS: Final = "IONWAX_SETTINGS"
"""The settings file that the demo's dataflows run with: topic, tables, lateness."""


def find(*names: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Addresses by the names of their environment variables: those of the environment, else of the newest demo.

    Raises ``OperatorError`` where one of ``names`` is known to neither. Values may hold a password.
    """
    found = {name: value for name in (*ADDRESSES, SETTINGS) if (value := environ.get(name))}
    if not all(name in found for name in names or ADDRESSES):
        found = _newest() | found
    if missing := [name for name in names or ADDRESSES if name not in found]:
        raise OperatorError(f"no demo is running here; start ./justw demo, or set {' and '.join(missing)}")
    return found


@contextmanager
def announced(addresses: Mapping[str, str]) -> Iterator[Path]:
    """Let others find this demo by its ``addresses`` for as long as the block lasts."""
    place = _place()
    path = place / f"{time.time_ns()}-{os.getpid()}.env"
    unfinished = path.with_suffix(".tmp")
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # one of the addresses holds a password
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.write(file, "".join(f"{name}={value}\n" for name, value in addresses.items()).encode())
        unfinished.rename(path)
        yield path
    finally:
        for left in (unfinished, path):
            left.unlink(missing_ok=True)
        os.close(file)


def _newest() -> dict[str, str]:
    for path in sorted(_place().glob("*.env"), reverse=True):
        try:
            with path.open() as file:
                if _is_held(file.fileno()):
                    return dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
        except OSError:
            continue  # gone since, or another user's
        with suppress(OSError):
            path.unlink()  # left behind
    return {}


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _place() -> Path:
    place = cache_directory() / "running"
    place.mkdir(mode=0o700, exist_ok=True)
    return place
