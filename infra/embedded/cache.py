"""Where downloads are kept for the next run, and how two processes share the place.

Rule: the directory is per user, outside the checkout, and `XDG_CACHE_HOME` moves it. What lies in it is
complete: it is written beside its place and renamed, under a lock that ends with its process.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import OperatorError

WAIT_SECS_MAX = 900.0


def cache_directory() -> Path:
    """The per-user cache directory of this project, created if need be."""
    base = os.environ.get("XDG_CACHE_HOME")
    preferred = (Path(base) if base else Path.home() / ".cache") / "ionwax"
    try:
        preferred.mkdir(parents=True, exist_ok=True)
        if os.access(preferred, os.W_OK | os.X_OK):
            return preferred
    except OSError:
        pass  # a user without a home, `nobody` for one
    return _private_directory(Path(tempfile.gettempdir()) / f"ionwax-cache-{os.geteuid()}")


def _private_directory(path: Path) -> Path:
    """A directory in a place that all may write to, refused unless it is ours alone."""
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise OperatorError(f"{path} belongs to someone else; set XDG_CACHE_HOME to a directory of your own.")
    return path


@contextmanager
def locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file; the lock goes with the process, so a killed holder blocks nobody."""
    deadline = time.monotonic() + WAIT_SECS_MAX
    said = False
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    say(f"waiting for another process that holds {path}")
                    said = True
                if time.monotonic() > deadline:
                    raise OperatorError(
                        f"Another process has held {path} for {WAIT_SECS_MAX:.0f} s; end it and run again."
                    ) from None
                time.sleep(0.1)
        yield
