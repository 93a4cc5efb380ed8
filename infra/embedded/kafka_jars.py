"""The jars of Apache Kafka: downloaded once per user, compared with our own list before every start.

Rule: `kafka-jars.sha256` (as `sha256sum` writes it) is the only word on what may run. jgo resolves and
downloads, but is not trusted: it rewrites its own lock file when a jar was changed. The repository it
downloads from is its configuration's, or its default; none is named here.

Guarantee: `verified_jars` returns a directory that held exactly the listed jars, byte for byte, a moment
ago, or raises one `OperatorError`. Two processes may call it at once.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infra.embedded.cache import locked
from infra.embedded.child import log_tail
from schemas.errors import OperatorError

VERSION = "4.3.0"
LIST = Path(__file__).with_name("kafka-jars.sha256")
_JGO_SPEC = Path(__file__).with_name("kafka-jgo.toml")
_DOWNLOAD_SECS_MAX = 900.0
_SAY_SECS = 2.0


def verified_jars(cache: Path, say: Callable[[str], None], listed: Path = LIST) -> Path:
    """The directory of Kafka's jars under `cache`, downloaded if it is not there yet (46 MB)."""
    expected = _read_list(listed)
    identity = hashlib.sha256(listed.read_bytes()).hexdigest()[:12]
    jars = cache / f"kafka-{VERSION}-{identity}"
    if not jars.exists():
        with locked(cache / f"kafka-{VERSION}.lock", say):
            if not jars.exists():
                _download(cache, jars, expected, say)
    wrong = _differences(jars, expected)
    if wrong:
        raise OperatorError(
            f"Apache Kafka is not started: {wrong} in {jars} (compared with {listed.name}). "
            "If you did not change it yourself, find out who did; then delete that directory and run again."
        )
    return jars


def _read_list(listed: Path) -> dict[str, str]:
    lines = listed.read_text().splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def _differences(jars: Path, expected: dict[str, str]) -> str:
    """What differs from the list, in words; empty when nothing does."""
    found = {file.name for file in jars.iterdir()}
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - found)]
    wrong += [f"{name} is not listed" for name in sorted(found - expected.keys())]
    wrong += [
        f"{name} has another SHA-256"
        for name in sorted(expected.keys() & found)
        if _sha256(jars / name) != expected[name]
    ]
    return "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(cache: Path, jars: Path, expected: dict[str, str], say: Callable[[str], None]) -> None:
    """Resolve beside the place, compare, then rename: a half-downloaded directory is never seen."""
    with tempfile.TemporaryDirectory(prefix=".kafka-", dir=cache) as name:
        staging = Path(name)
        shutil.copy(_JGO_SPEC, staging / "jgo.toml")
        say(f"Apache Kafka {VERSION}: downloading {len(expected)} jars, about 46 MB, once, into {cache}")
        _run_jgo(staging, len(expected), say)
        arrived = staging / "arrived"
        arrived.mkdir()
        for jar in (staging / "repository").rglob("*.jar"):
            jar.rename(arrived / jar.name)
        wrong = _differences(arrived, expected)
        if wrong:
            raise OperatorError(
                f"The download of Apache Kafka is not what {LIST.name} lists: {wrong}. Nothing was kept. "
                "Run again; if it stays so, ask who runs the Maven repository or proxy it came from."
            )
        arrived.rename(jars)


def _run_jgo(staging: Path, jars_total: int, say: Callable[[str], None]) -> None:
    log = staging / "jgo.log"
    argv = [sys.executable, "-m", "jgo", "--resolver", "python", "--class-path-only", "--links", "soft", "sync"]
    env = os.environ | {
        "M2_REPO": str(staging / "repository"),
        "JGO_CACHE_DIR": str(staging / "links"),
    }
    with log.open("wb") as output:
        jgo = subprocess.Popen(
            argv, cwd=staging, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _watch(jgo, staging, jars_total, say)
    finally:
        if jgo.poll() is None:
            jgo.kill()
            jgo.wait()
    if jgo.returncode != 0:
        raise OperatorError(
            "Apache Kafka could not be downloaded. Check that this machine reaches Maven Central "
            "(HTTPS_PROXY is respected; a mirror goes into ~/.config/jgo.conf), or set "
            f"KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own. jgo said:\n{log_tail(log)}"
        )


def _watch(jgo: "subprocess.Popen[bytes]", staging: Path, jars_total: int, say: Callable[[str], None]) -> None:
    """Say how far the download is until it ends."""
    deadline = time.monotonic() + _DOWNLOAD_SECS_MAX
    while jgo.poll() is None and time.monotonic() < deadline:
        try:
            jgo.wait(_SAY_SECS)
        except subprocess.TimeoutExpired:
            sizes = [file.stat().st_size for file in (staging / "repository").rglob("*.jar")]
            if sizes:
                say(f"  {len(sizes)} of {jars_total} jars, {sum(sizes) / 1e6:.0f} MB")
            else:
                say("  reading what Kafka depends on")
