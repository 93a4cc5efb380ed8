"""The bootstrap finds what is there, believes only what ran, and speaks in one line where it cannot go on.

Nothing here downloads: what needs a network is run for real on a bare machine (DECISIONS.md says how).
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra import bootstrap

ROOT = Path(__file__).parents[2]


def program(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with an empty home and none of the variables that steer pip and uv."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "XDG_", "PYENV_")) or name.endswith(("_CERT_FILE", "_CA_BUNDLE", "_PROXY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_an_interpreter_is_believed_only_when_it_ran(tmp_path: Path) -> None:
    """A shim of pyenv is executable and fails; a real interpreter says its version and where it really is."""
    shim = program(tmp_path / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    silent = program(tmp_path / "python3", "exit 0")
    found = bootstrap.probe(sys.executable)
    assert (bootstrap.probe(str(shim)), bootstrap.probe(str(silent)), bootstrap.probe("/nonexistent")) == (None,) * 3
    assert found is not None
    assert found.version == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert found.executable == os.path.realpath(sys.executable)


def test_python_is_found_behind_a_failing_shim(bare: Path) -> None:
    """The first python3.12 on PATH fails, and the search goes on to one that runs."""
    program(bare / "shims" / "python3.12", "exit 127")
    program(bare / "shims" / "python3", "exit 127")
    program(bare / "real" / "python3", f'exec "{os.path.realpath(sys.executable)}" "$@"')
    env = {"PATH": f"{bare}/shims:{bare}/real"}
    assert bootstrap.find_python("uv-that-is-not-asked", env) == os.path.realpath(sys.executable)


def test_mirrors_of_pip_are_mirrors_of_uv(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index, certificate and proxy come from pip's file; PIP_… of the environment goes before it."""
    certificates = bare / "company.pem"
    certificates.write_text("PEM")
    settings = bare / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f"[global]\nindex-url = http://file.invalid/simple\ncert = {certificates}\nproxy = http://proxy.invalid:1\n"
        "[install]\ntrusted-host =\n  one.invalid\n  two.invalid\n"
    )
    assert bootstrap.environment()["UV_DEFAULT_INDEX"] == "http://file.invalid/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "http://variable.invalid/simple")
    env = bootstrap.environment()
    assert env["UV_DEFAULT_INDEX"] == "http://variable.invalid/simple"
    assert env["UV_INSECURE_HOST"] == "one.invalid two.invalid"
    assert (env["SSL_CERT_FILE"], env["PIP_CERT"]) == (str(certificates), str(certificates))
    assert env["ALL_PROXY"] == "http://proxy.invalid:1"


@pytest.mark.usefixtures("bare")
def test_what_is_set_for_uv_itself_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip's settings only fill in."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://pip.invalid/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://uv.invalid/simple")
    assert bootstrap.environment()["UV_DEFAULT_INDEX"] == "http://uv.invalid/simple"


def test_a_folder_of_wheels_counts_where_it_is(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing one is a warning to pip and would be an error to uv."""
    monkeypatch.setenv("PIP_FIND_LINKS", f"{bare} /nonexistent http://links.invalid/")
    assert bootstrap.environment()["UV_FIND_LINKS"] == f"{bare},http://links.invalid/"
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    assert "UV_FIND_LINKS" not in bootstrap.environment()


@pytest.mark.usefixtures("bare")
def test_a_home_that_cannot_be_written_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service account's home does not exist; uv then keeps its cache and Pythons beside the repository."""
    assert "UV_CACHE_DIR" not in bootstrap.environment()
    monkeypatch.setenv("HOME", "/dev/null/nobody")
    env = bootstrap.environment()
    assert Path(env["UV_CACHE_DIR"]).parent == Path(env["UV_PYTHON_INSTALL_DIR"]).parent == bootstrap.STATE


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that ./justw needs, in a path with spaces."""
    root = tmp_path / "a path with spaces" / "ionwax"
    (root / "infra").mkdir(parents=True)
    for name in ("justw", "justfile", "infra/bootstrap.py", "requirements-embedded.lock", "requirements-uv.lock"):
        shutil.copy2(ROOT / name, root / name)
    return root


def justw(checkout: Path, path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ./justw from another directory with only what ``path`` holds beside the tools of every POSIX system."""
    for tool in ("sh", "dirname", "cmp"):
        if not (path / tool).exists():
            (path / tool).symlink_to(str(shutil.which(tool)))
    env = {"PATH": str(path), "HOME": str(path), **settings}
    return subprocess.run(
        [checkout / "justw", *arguments], cwd="/", env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_an_index_that_is_away_ends_in_one_line(checkout: Path, tmp_path: Path) -> None:
    """Pip's own message, then what to do; non-zero, nothing on stdout, and nothing half-fetched left."""
    program(tmp_path / "bin" / "python3", f'exec "{sys.executable}" "$@"')
    done = justw(checkout, tmp_path / "bin", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("justw: uv cannot be fetched: install ")
    assert [path.name for path in (checkout / ".ionwax").iterdir()] == ["bootstrap.lock"]


@pytest.fixture
def installed(checkout: Path) -> Path:
    """The checkout with an environment that was made from its lock: just itself, and a Python that is a script."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "locks").mkdir()
    shutil.copy(checkout / "requirements-embedded.lock", checkout / ".venv" / "locks")
    (checkout / ".venv" / "bin" / "just").symlink_to(Path(sys.executable).parent / "just")
    return checkout


def test_arguments_arrive_as_they_were_typed(installed: Path, tmp_path: Path) -> None:
    """From any directory, with spaces, quotes, stars and nothing in them; the program's exit code comes back."""
    program(installed / ".venv" / "bin" / "python", """printf '<%s>' "$PWD" "$@"; exit 7""")
    (tmp_path / "bin").mkdir()
    done = justw(installed, tmp_path / "bin", "sql", "select  '*'", "$HOME", "", "--for")
    assert done.stdout == f"<{installed}><-m><infra.sql><select  '*'><$HOME><><--for>"
    assert (done.stderr, done.returncode) == ("", 7)


def test_a_signal_to_justw_alone_reaches_the_program(installed: Path, tmp_path: Path) -> None:
    """The program takes the place of justw, so that whoever started it can interrupt it by the process id it knows."""
    program(installed / ".venv" / "bin" / "python", "trap 'exit 3' INT; echo up; while :; do sleep 0.05; done")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with subprocess.Popen([installed / "justw", "demo"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == b"up\n"
        it.send_signal(signal.SIGINT)
        assert (it.wait(timeout=90), it.communicate()) == (3, (b"", b""))


def test_a_recipe_that_is_missing_is_named(installed: Path, tmp_path: Path) -> None:
    """Just's own message, once."""
    program(installed / ".venv" / "bin" / "python", "exit 0")
    (tmp_path / "bin").mkdir()
    done = justw(installed, tmp_path / "bin", "no-such-recipe")
    assert (done.returncode, done.stderr.count("no-such-recipe")) == (1, 1)


def test_a_sync_whose_lock_is_installed_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither uv nor the install lock is touched."""
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "STATE", tmp_path / ".ionwax")
    (tmp_path / "requirements-test.lock").write_text("one==1\n")
    program(tmp_path / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    locks = tmp_path / ".venv" / "locks"
    locks.mkdir()
    shutil.copy(tmp_path / "requirements-test.lock", locks)
    bootstrap.sync("test")
    assert not bootstrap.STATE.exists()
