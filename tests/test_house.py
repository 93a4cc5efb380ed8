"""The house holds its rules: who may import whom, what is declared, what files may be called and may contain.

Rule: everything is read from the files themselves (ast, tomllib, the tracked text), so a rule cannot be met by accident
of what happens to be installed or imported. Each check first makes sure that it looks at something.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.locks import GROUPS, canonical, declared

ROOT = Path(__file__).parents[1]
OURS = {"schemas", "connectors", "dataflows", "infra", "notebooks", "tests"}
PURE = ("dataflows/decoding/", "dataflows/windowing/", "dataflows/anomalies/")

# Folder → what of ours its modules may import; the longest matching folder rules.
MAY_IMPORT = {
    "schemas/": {"schemas"},
    "connectors/": {"schemas", "connectors"},
    **{folder: {"schemas", folder.rstrip("/").replace("/", ".")} for folder in PURE},
    "dataflows/": {"schemas", "connectors", "dataflows"},
    "infra/": {"schemas", "connectors", "dataflows", "infra"},
    "infra/bootstrap.py": set(),  # runs alone, before anything of ours can be imported
    "tests/": {"schemas", "connectors", "dataflows", "infra", "tests"},
}
# What the pure packages may take from others, and what they may not touch of the standard library: no clock, no I/O.
PURE_THIRD_PARTY = {"google", "msgspec", "numpy", "polars", "ptars", "pyarrow"}
IMPURE = {"asyncio", "io", "logging", "multiprocessing", "os", "pathlib", "random", "shutil", "signal", "socket"} | {
    "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib", "http", "secrets", "uuid",
}  # fmt: skip
IMPURE_CALLS = {"now", "utcnow", "today", "open", "input", "print"}
OF_PEERS = {"infra/bench/rollups_quix.py"}  # run by .venv-peers
COMMANDS = {"dataflows/anomalies/benchmark.py"}  # commands beside a pure package: they read and write files

BAD_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "handler", "service", "misc"}
LINES_MAX = 300

# Split, so that this file does not name them either.
HOSTS = ["pypi" + ".org", "python" + "hosted.org", "maven" + ".org", "maven.apache" + ".org", "npmjs" + ".org"]
HOSTS += ["crates" + ".io", "anaconda" + ".org", "debian" + ".org", "github.com/[^ ]*/releases/" + "download"]
PATHS = [r"(?<![\w.~])/" + "work/", r"(?<![\w.~])/" + "root/", "/home/" + r"\w+/", "/Users/" + r"\w+/"]
SECRETS = ["-----BEGIN [A-Z ]*PRIVATE " + "KEY-----", r"\bAKIA" + "[0-9A-Z]{16}", r"\bgh[pousr]_" + r"\w{30,}"]


class Import(NamedTuple):
    """One imported module: its dotted name, its line, and whether importing the file imports it."""

    name: str
    line: int
    at_import: bool


@cache
def files() -> tuple[Path, ...]:
    """The tracked files that exist; without git (a fresh machine has none) all that .gitignore would not leave out."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        ignored = {line.strip().strip("/*") for line in (ROOT / ".gitignore").read_text().splitlines()} | {".git"}
        paths = [path for path in ROOT.rglob("*") if not ignored & {*path.relative_to(ROOT).parts, path.suffix}]
    found = tuple(sorted(path for path in paths if path.is_file()))
    assert len(found) > 20
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules() -> list[Path]:
    """Our Python files, generated ones left out."""
    return [path for path in files() if path.suffix == ".py" and not path.stem.endswith("_pb2")]


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, relative ones made absolute; ``from package import module`` counts as the module."""
    package = [] if path == ROOT / path.name else list(path.relative_to(ROOT).parts[:-1])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nested = {id(node) for function in ast.walk(tree) if isinstance(function, FUNCTIONS) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(name, node.lineno, id(node) not in nested) for name in names)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def allowed(path: Path) -> set[str]:
    """The packages of ours that a file may import, by the longest folder that rules it."""
    rules = [folder for folder in MAY_IMPORT if relative(path).startswith(folder)]
    assert rules, f"{relative(path)} lies in no known folder"
    return MAY_IMPORT[max(rules, key=len)]


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_no_import_points_upward() -> None:
    """Schemas import nothing of ours, connectors only schemas, pure packages only schemas."""
    offences = [
        f"{relative(path)}:{found.line} imports {found.name}"
        for path in modules()
        for found in imports(path)
        if found.name.split(".")[0] in OURS and not within(found.name, allowed(path))
    ]
    assert offences == []


def test_pure_packages_touch_no_clock_no_engine_and_no_io() -> None:
    """Decoding, windowing and anomalies are fed and answer; nothing in them reads time or the world."""
    offences = []
    for path in modules():
        if not relative(path).startswith(PURE) or relative(path) in COMMANDS:
            continue
        for found in imports(path):
            top = found.name.split(".")[0]
            outside = top not in sys.stdlib_module_names | PURE_THIRD_PARTY | OURS
            if outside or top in IMPURE:
                offences.append(f"{relative(path)}:{found.line} imports {found.name}")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
                if called in IMPURE_CALLS:
                    offences.append(f"{relative(path)}:{node.lineno} calls {called}()")
    assert offences == []


def test_every_import_is_declared() -> None:
    """What a package imports is declared; the three production packages need the runtime alone."""
    distributions = packages_distributions()
    runtime, everything = declared("runtime"), set().union(*(declared(group) for group in GROUPS))
    offences = []
    for path in modules():
        folder = relative(path).split("/")[0]
        for found in imports(path):
            top = found.name.split(".")[0]
            if top in sys.stdlib_module_names or top in OURS:
                continue
            if relative(path) in OF_PEERS and canonical(top) in declared("peers"):
                continue
            needed = {canonical(name) for name in distributions.get(top, [f"{top} (not installed)"])}
            known = everything
            if found.at_import and folder in {"schemas", "connectors", "dataflows"}:
                known = runtime
            elif found.at_import and folder == "infra":
                known = declared("embedded")
            if not needed & known:
                offences.append(f"{relative(path)}:{found.line} imports {top} of {sorted(needed)}")
    assert offences == []


def test_files_are_short_and_named_by_their_concept() -> None:
    """A module fits in a head: at most 300 lines, and a name that says what lives there."""
    long = [relative(path) for path in modules() if len(path.read_text("utf-8").splitlines()) > LINES_MAX]
    vague = [
        relative(path)
        for path in files()
        for part in path.relative_to(ROOT).with_suffix("").parts
        if BAD_NAMES & set(re.split(r"[-_.]", part.lower()))
    ]
    assert (long, vague) == ([], [])


def test_every_module_says_what_lives_in_it() -> None:
    """Each module of ours that is not empty opens with a docstring."""
    texts = {relative(path): path.read_text("utf-8") for path in modules()}
    silent = [name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))]
    assert silent == []


@pytest.mark.parametrize("patterns", [HOSTS, PATHS, SECRETS], ids=["registry hosts", "machine paths", "secrets"])
def test_nothing_committed_names(patterns: list[str]) -> None:
    """No address of a registry (people have mirrors), no path of one machine, no secret."""
    offence = re.compile("|".join(patterns))
    found = [
        f"{relative(path)}:{number} {line.strip()[:80]}"
        for path in files()
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if offence.search(line)
    ]
    assert found == []


def secrets(section: object) -> Iterator[object]:
    """The values of all settings that are secret by their names."""
    for name, value in section.items() if isinstance(section, dict) else ():
        if re.search("password|secret|token", str(name)):
            yield value
        yield from secrets(value)


def test_settings_take_secrets_from_the_environment() -> None:
    """A password in a settings file is written ``${NAME}`` or left empty."""
    settings = [path for path in files() if relative(path).startswith("infra/settings/") and path.suffix == ".yaml"]
    values = [value for path in settings for value in secrets(yaml.safe_load(path.read_text("utf-8")))]
    assert values
    assert [value for value in values if value and not re.fullmatch(r"\$\{\w+\}", str(value))] == []


def recipes() -> set[str]:
    """The public recipes of the justfile."""
    found = re.findall(r"^([a-z][\w-]*)[^:=\n]*:(?!=)", (ROOT / "justfile").read_text("utf-8"), re.M)
    assert {"demo", "test"} <= set(found)
    return set(found)


@pytest.mark.parametrize("name", ["justfile", ".ci/run"])
def test_commands_call_modules_that_exist(name: str) -> None:
    """``python -m infra.demo`` in a recipe has a file behind it."""
    called = set(re.findall(r"python -m ([\w.]+)", (ROOT / name).read_text("utf-8")))
    ours = {module for module in called if module.split(".")[0] in OURS}
    places = {module: ROOT / module.replace(".", "/") for module in ours}
    assert ours
    assert {
        m for m, p in places.items() if not (p.with_suffix(".py").exists() or (p / "__main__.py").exists())
    } == set()


def test_documents_name_recipes_that_exist() -> None:
    """Every ``./justw NAME`` in the documents, the script of CI and our messages is a recipe."""
    named = {
        (relative(path), name)
        for path in files()
        if (path.suffix in {".md", ".py", ".ipynb", ".yaml"} and "tests" not in path.parts) or path.name == "run"
        for name in re.findall(r"\./justw ([a-z][\w-]*)", path.read_text("utf-8", errors="replace"))
    }
    assert {(file, name) for file, name in named if name not in recipes()} == set()


def test_ci_runs_what_people_run() -> None:
    """The workflow calls .ci/run, which calls the README's command; both doors can be executed."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    assert ".ci/run" in [step.get("run") for job in jobs.values() for step in job["steps"]]
    assert "./justw test" in (ROOT / "README.md").read_text("utf-8")
    called = re.findall(r"^half .* (test\S*)$", (ROOT / ".ci/run").read_text("utf-8"), re.M)
    assert called == ["test", "test-integration"]
    assert all((ROOT / door).stat().st_mode & 0o111 for door in ("justw", ".ci/run"))
