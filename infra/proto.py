"""Generates the Python of every ``schemas/*.proto``: ``python -m infra.proto``.

Rule: generated files are committed, so that running needs no compiler; a test asserts that they are current.
The compiler is grpcio-tools of the test environment. Its protobuf version is the lowest that the code runs with.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def generate(into: Path) -> list[Path]:
    """Write ``schemas/*_pb2.py`` and ``*_pb2.pyi`` below ``into``; the paths written, relative to it."""
    from grpc_tools import protoc  # a dependency of the tests only

    sources = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("schemas/*.proto"))
    arguments = ["protoc", f"--proto_path={ROOT}", f"--python_out={into}", f"--pyi_out={into}", *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused schemas/*.proto: see its message above")
    return [Path(source).with_name(f"{Path(source).stem}_pb2{end}") for source in sources for end in (".py", ".pyi")]


def stale() -> list[Path]:
    """Generated files that differ from what the compiler would write now."""
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        return [path for path in generate(fresh) if not _same(fresh / path, ROOT / path)]


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    for written in generate(ROOT):
        print(written, file=sys.stderr)
