"""Running a server as `nobody` when we are root, which PostgreSQL insists on.

Rule: no mode of a directory that is not ours is changed and no user is added. What `nobody` cannot reach,
a checkout or a virtual environment under /root for one, is put where it can: programs are copied, data get
a place of their own.

Guarantee: a place found here is owned by us and writable by no one else, or the choice is refused.
"""

import hashlib
import os
import pwd
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from infra.embedded.child import Account
from schemas.errors import OperatorError

_DATA_PLACES = (Path("/var/lib"), Path("/var/tmp"), Path("/tmp"))
_PROGRAM_PLACES = (Path("/var/cache"), Path("/var/tmp"), Path("/tmp"))


def account_if_root() -> Account | None:
    """`nobody` for root, None for anyone else, who needs none of this module."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise OperatorError(
            "PostgreSQL does not run as root, and this system has no user `nobody` to run it as. "
            "Run as an ordinary user, or set DATABASE_URL to a server of your own."
        ) from None
    return Account("nobody", nobody.pw_uid, nobody.pw_gid)


def can_reach(account: Account, path: Path) -> bool:
    """Whether the account may pass every directory on the way to `path` and read (a directory: enter) it.

    Mode bits only: an access list that grants more is not seen, and costs a copy.
    """
    path = path.resolve()
    if not all(_allows(account, parent, stat.S_IXOTH) for parent in path.parents):
        return False
    return _allows(account, path, stat.S_IXOTH if path.is_dir() else stat.S_IROTH)


def program_place(account: Account, preferred: Path) -> Path:
    """A directory for copies of programs: `preferred` where the account can reach it."""
    return _place(account, preferred, _PROGRAM_PLACES, "ionwax")


def data_place(account: Account, preferred: Path) -> Path:
    """A directory for the data of `preferred`: itself where the account can reach it, else one that stands for it."""
    digest = hashlib.sha256(os.fsencode(preferred.absolute())).hexdigest()[:16]
    return _place(account, preferred, _DATA_PLACES, f"ionwax-{digest}")


def temporary_directory(account: Account | None) -> Path:
    """A new directory that is ours, in the usual place, which the account can pass through."""
    for parent in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if parent.is_dir() and (account is None or can_reach(account, parent)):
            made = Path(tempfile.mkdtemp(prefix="ionwax-", dir=parent))
            if account is not None:
                made.chmod(0o711)
            return made
    raise OperatorError("No temporary directory can be used; set TMPDIR to one that every user may enter.")


def _place(account: Account, preferred: Path, places: Sequence[Path], name: str) -> Path:
    if can_reach(account, preferred):
        return preferred
    for parent in places:
        if parent.is_dir() and can_reach(account, parent) and os.access(parent, os.W_OK):
            place = parent / name
            place.mkdir(mode=0o755, exist_ok=True)
            status = place.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if ours and not status.st_mode & 0o022:
                place.chmod(0o755)  # whatever the umask
                return place
    raise OperatorError(
        f"PostgreSQL runs as `{account.name}` here, which cannot enter {preferred} nor a directory of its own in "
        f"{', '.join(map(str, places))}. Run as an ordinary user, or set DATABASE_URL to a server of your own."
    )


def _allows(account: Account, path: Path, bit_for_others: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    if status.st_uid == account.uid:
        return bool(status.st_mode & bit_for_others << 6)
    if status.st_gid == account.gid:
        return bool(status.st_mode & bit_for_others << 3)
    return bool(status.st_mode & bit_for_others)
