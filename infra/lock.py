"""Resolves pyproject.toml into the requirements*.lock files: ``python -m infra.lock [--upgrade | …]``.

Rule: one resolution. The tests' lock holds every package of the others and is resolved first; the others may only
choose from it. Exceptions are uv, which is installed alone, and the peers, which live in an environment of their own.
Every lock is universal (Python 3.11 and 3.12, Linux and macOS), hashed, and names no index: people have their own.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNTIME = ["pyproject.toml"]
WITHIN = ["--constraints", "requirements-test.lock"]
LOCKS = {  # in this order: the first one decides
    "requirements-test.lock": [*RUNTIME, "--group", "test"],
    "requirements-notebook.lock": [*RUNTIME, "--group", "notebook", *WITHIN],
    "requirements-embedded.lock": [*RUNTIME, "--group", "embedded", *WITHIN],
    "requirements.lock": [*RUNTIME, *WITHIN],
    "requirements-peers.lock": ["--group", "peers"],
    "requirements-uv.lock": ["--group", "uv"],
}
COMPILE = ["pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"]


def main(options: list[str]) -> int:
    """Write every lock, keeping versions that still fit unless ``options`` of ``uv pip compile`` say otherwise."""
    uv = subprocess.run(
        [sys.executable, "-I", ROOT / "infra/bootstrap.py", "uv"], check=False, stdout=subprocess.PIPE, text=True
    )
    if uv.returncode != 0:
        return uv.returncode
    for lock, arguments in LOCKS.items():
        command = [uv.stdout.strip(), *COMPILE, *arguments, "--output-file", lock, *options]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            return 1
        print(lock, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
