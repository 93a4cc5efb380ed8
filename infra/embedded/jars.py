"""Java servers as jars: downloaded once per user, compared with our own list before every start.

Rule: a committed list (as `sha256sum` writes it, with the paths of a Maven repository) is the only word on
what may run. Nothing is resolved at run time: jgo brings exactly the listed files, from the repositories
of its configuration (`~/.config/jgo.conf`) and then from its default one, and is not trusted. What it would
resolve is how a list is made anew: `jgo --class-path-only sync` on the coordinates in the server's module,
then `sha256sum` over the repository it filled.

Guarantee: `verified_jars` returns a directory that held exactly the listed jars, byte for byte, a moment
ago, or raises one `OperatorError`. Two processes may call it at once.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.cache import locked
from schemas.errors import OperatorError

_DOWNLOADS_AT_ONCE_MAX = 6
_CONNECT_SECS_MAX = 15
_SAY_SECS = 2.0


@dataclass(frozen=True)
class JarList:
    """The jars of one server: its title and version for people, its list, and roughly its size."""

    title: str
    version: str
    file: Path
    size_mb: int

    def digests(self) -> dict[str, str]:
        """Path within a Maven repository → SHA-256."""
        lines = self.file.read_text().splitlines()
        return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def verified_jars(jars: JarList, cache: Path, say: Callable[[str], None]) -> Path:
    """The directory of the listed jars under `cache`, downloaded if it is not there yet."""
    expected = {Path(path).name: digest for path, digest in jars.digests().items()}
    identity = hashlib.sha256(jars.file.read_bytes()).hexdigest()[:12]
    name = f"{jars.title.lower().replace(' ', '-')}-{jars.version}"
    directory = cache / f"{name}-{identity}"
    if not directory.exists():
        with locked(cache / f"{name}.lock", say):
            if not directory.exists():
                _download(jars, cache, directory, expected, say)
    wrong = _differences(directory, expected)
    if wrong:
        raise OperatorError(
            f"{jars.title} is not started: {wrong} in {directory} (compared with {jars.file.name}). "
            "If you did not change it yourself, find out who did; then delete that directory and run again."
        )
    return directory


def _differences(directory: Path, expected: dict[str, str]) -> str:
    """What differs from the list, in words; empty when nothing does."""
    found = {file.name for file in directory.iterdir()}
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - found)]
    wrong += [f"{name} is not listed" for name in sorted(found - expected.keys())]
    wrong += [
        f"{name} has another SHA-256"
        for name in sorted(expected.keys() & found)
        if _sha256(directory / name) != expected[name]
    ]
    return "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(
    jars: JarList, cache: Path, directory: Path, expected: dict[str, str], say: Callable[[str], None]
) -> None:
    """Fetch beside the place, compare, then rename: a half-downloaded directory is never seen."""
    say(f"{jars.title} {jars.version}: downloading {len(expected)} jars, {jars.size_mb} MB, once, into {cache}")
    with tempfile.TemporaryDirectory(prefix=".jars-", dir=cache) as staging:
        arrived = Path(staging) / "arrived"
        arrived.mkdir()
        try:
            _fetch(sorted(jars.digests()), Path(staging) / "repository", arrived, say)
        except Exception as error:  # jgo lets through whatever its HTTP client or the file system raises
            raise OperatorError(
                f"{jars.title} could not be downloaded: {error}. Check that this machine reaches Maven Central "
                "(HTTPS_PROXY is respected, a mirror goes into ~/.config/jgo.conf), "
                "or name a server of your own in the environment."
            ) from error
        wrong = _differences(arrived, expected)
        if wrong:
            raise OperatorError(
                f"The download of {jars.title} is not what {jars.file.name} lists: {wrong}. Nothing was kept. "
                "Run again; if it stays so, ask who runs the Maven repository or proxy it came from."
            )
        arrived.rename(directory)


def _fetch(paths: list[str], repository: Path, arrived: Path, say: Callable[[str], None]) -> None:
    """Fetch each path, several at a time, into `arrived`; says how far it is every few seconds."""
    from jgo.config import GlobalSettings  # needed only where something is missing
    from jgo.maven import MavenContext

    context = MavenContext(
        repo_cache=repository,
        remote_repos=GlobalSettings.load().repositories | MavenContext().remote_repos,
        timeout=_CONNECT_SECS_MAX,
    )

    def fetch(path: str) -> int:
        *group, artifact, version, file = path.split("/")
        classifier = file.removeprefix(f"{artifact}-{version}").removesuffix(".jar").removeprefix("-")
        component = context.project(".".join(group), artifact).at_version(version)
        jar = component.artifact(classifier).resolve()
        size = jar.stat().st_size
        jar.rename(arrived / jar.name)
        return size

    said, size_bytes = time.monotonic(), 0
    pool = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE_MAX)
    try:
        for count, fetched in enumerate(as_completed([pool.submit(fetch, path) for path in paths]), 1):
            size_bytes += fetched.result()
            if time.monotonic() - said > _SAY_SECS or count == len(paths):
                said = time.monotonic()
                say(f"  {count} of {len(paths)} jars, {size_bytes / 1e6:.0f} MB")
    finally:
        pool.shutdown(cancel_futures=True)
