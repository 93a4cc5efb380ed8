"""Make .venv from the locks: what justw runs when something is missing.

    bootstrap.py sync GROUP     install requirements-GROUP.lock into .venv (peers: into .venv-peers)
    bootstrap.py uv             print the path of uv

Runs on any Python from 3.9 on with the standard library alone; with -I, since the modules beside it are not meant
for it. No address is named here: uv comes from PATH or through a pip, and a pip comes from Python, its ensurepip or
this machine's apt mirror, so people's own mirrors, proxies and certificates are used.

Installing only adds. Each environment keeps a copy of every lock it was made from in `locks/`; a sync whose copy is
equal does nothing. One process installs at a time; what an interrupted one left is repaired by the next.
"""

from __future__ import annotations

import configparser
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".ionwax"
UV_LOCK = ROOT / "requirements-uv.lock"
UV_OLDEST = (0, 9)  # from here on every option used below exists
PYTHONS = ("3.12", "3.11")  # best first; bytewax has wheels for no later one
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "proxy": "ALL_PROXY",
}


class Impossible(Exception):
    """What to do, in one line, for the person at the terminal."""


def say(text: str) -> None:
    """Tell the person; never on stdout, which belongs to the recipe."""
    print(f"justw: {text}", file=sys.stderr, flush=True)


def run(command: list[str], env: dict[str, str] | None = None, cwd: Path = ROOT) -> bool:
    """Run in sight of the person; whether it succeeded."""
    done = subprocess.run(command, check=False, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    return done.returncode == 0


def ask(command: list[str], env: dict[str, str] | None = None) -> str | None:
    """Run out of sight; its output, or None where it failed, as a shim of pyenv does."""
    try:
        done = subprocess.run(
            command, check=False, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def pip_settings() -> dict[str, str]:
    """Pip's settings by their long names: its files in pip's order, then PIP_… of the environment."""
    parser = configparser.RawConfigParser(strict=False)
    config_home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    files = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", f"{config_home}/pip/pip.conf")
    try:
        parser.read([os.path.expanduser(file) for file in (*files, os.environ.get("PIP_CONFIG_FILE", ""))])
    except (configparser.Error, UnicodeDecodeError) as error:
        say(f"pip's configuration cannot be read and is left out: {error}")
    settings: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            settings.update(parser.items(section))
    for name in (*PIP_TO_UV, "cert"):
        settings[name] = os.environ.get("PIP_" + name.upper().replace("-", "_")) or settings.get(name, "")
    return settings


def environment() -> dict[str, str]:
    """The environment of pip and uv: one set of mirrors, proxy and certificates for both, the person's own."""
    env, settings = dict(os.environ), pip_settings()
    for name, variable in PIP_TO_UV.items():
        values = settings[name].split()
        if name == "find-links":  # a folder that is missing is a warning to pip and an error to uv
            values = [value for value in values if "://" in value or os.path.isdir(value)]
        if values and not env.get(variable):
            env[variable] = ("," if name == "find-links" else " ").join(values)
    bundles = (env.get("SSL_CERT_FILE"), settings["cert"], env.get("REQUESTS_CA_BUNDLE"), env.get("CURL_CA_BUNDLE"))
    bundle = next((path for path in (*bundles, *CA_BUNDLES) if path and os.path.isfile(path)), None)
    if bundle:
        env["SSL_CERT_FILE"] = bundle
        env.setdefault("PIP_CERT", bundle)
    # Settings of pip that would refuse or redirect what is asked of it here.
    env.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    env["PIP_ROOT_USER_ACTION"] = "ignore"
    for variable, home, ours in (
        ("UV_CACHE_DIR", env.get("XDG_CACHE_HOME") or "~/.cache", "uv-cache"),
        ("UV_PYTHON_INSTALL_DIR", env.get("XDG_DATA_HOME") or "~/.local/share", "python"),
    ):
        if not env.get(variable) and not writable(Path(os.path.expanduser(home))):
            env[variable] = str(STATE / ours)
    return env


def writable(folder: Path) -> bool:
    """Whether a folder is there, or can be made, to write in; below a service account's home often not."""
    nearest = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    return folder.is_absolute() and os.access(nearest, os.W_OK | os.X_OK)


def find_uv(env: dict[str, str]) -> str:
    """A uv that runs: from PATH when new enough, else the locked one, fetched once into .ionwax/; call it alone."""
    answer = re.match(r"uv (\d+)\.(\d+)", ask(["uv", "--version"]) or "")
    if answer and (int(answer[1]), int(answer[2])) >= UV_OLDEST:
        return "uv"
    pin = UV_LOCK.read_text(encoding="utf-8").split()[0]
    uv = STATE / pin.replace("==", "-")
    if ask([str(uv), "--version"]):
        return str(uv)
    say(f"fetching {pin}")
    scratch = STATE / "fetching"  # one name, so that what a killed process left is found and removed
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        os.replace(fetch_uv(scratch, env), uv)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return str(uv)


def fetch_uv(scratch: Path, env: dict[str, str]) -> Path:
    """Through the first pip that there is, checked against the lock's hashes."""
    into = scratch / "installed"
    options = ["--target", str(into), "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(UV_LOCK)]
    pip, extra = next(pips(scratch, env), ([], {}))
    if pip and run([*pip, "install", *options], env={**env, **extra}):
        return next(into.glob("**/bin/uv"))
    raise Impossible("uv cannot be fetched: install uv, python3-pip or python3-venv, or mend the above, and run again")


def pips(scratch: Path, env: dict[str, str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Commands that are pip, with what each adds to the environment; the least trouble first."""
    ours = [sys.executable, "-m", "pip"]
    for command in (ours, ["python3", "-m", "pip"], ["pip3"], ["pip"]):
        if ask([*command, "--version"], env):
            yield command, {}
    ensurepip = ask([sys.executable, "-I", "-c", "import ensurepip as it; print(it.__path__[0])"])
    for folder in (Path(ensurepip or ".", "_bundled"), Path("/usr/share/python-wheels")):
        if any(folder.glob("pip-*.whl")):
            yield ours, wheels_on_path(folder)
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        system = fetch_from_apt(scratch)
        bundle = scratch / "ca.crt"
        bundle.write_text("".join(path.read_text() for path in system.glob("usr/share/ca-certificates/*/*.crt")))
        certificates = {} if env.get("PIP_CERT") else {"PIP_CERT": str(bundle)}
        yield ours, {**wheels_on_path(system / "usr/share/python-wheels"), **certificates}


def wheels_on_path(folder: Path) -> dict[str, str]:
    """Run pip out of its wheel, which needs neither venv nor ensurepip."""
    return {"PYTHONPATH": os.pathsep.join(map(str, sorted(folder.glob("*.whl"))))}


def fetch_from_apt(scratch: Path) -> Path:
    """Debian's pip wheel and certificates, unpacked, installed nowhere; any user may, with lists of one's own."""
    say("no pip here: asking apt for its wheel (nothing is installed on the system)")
    system = scratch / "debian"
    system.mkdir()
    with tempfile.TemporaryDirectory(prefix="justw-apt-") as folder:  # not in ROOT: apt and spaces do not mix
        work = Path(folder)
        for name in ("lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        apt = ["apt-get", "-q", "-o", f"Dir::State::lists={work}/lists", "-o", f"Dir::Cache={work}/cache"]
        apt += ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"]
        run([*apt, "update"], cwd=work)
        run([*apt, "download", "python3-pip-whl", "ca-certificates"], cwd=work)
        for deb in work.glob("*.deb"):
            run(["dpkg-deb", "-x", str(deb), str(system)])
    return system


class Python(NamedTuple):
    """An interpreter that ran: "3.12", its executable with links resolved, its prefix."""

    version: str
    executable: str
    prefix: str


def probe(python: str) -> Python | None:
    """Run an interpreter to believe it; None where it fails or lacks a module that the packages need."""
    code = "import sys, ssl, ctypes; print('%d.%d' % sys.version_info[:2], sys.executable, sys.prefix, sep='\\n')"
    lines = (ask([python, "-I", "-c", code]) or "").splitlines()
    return Python(lines[0], os.path.realpath(lines[1]), lines[2]) if len(lines) == 3 else None


def find_python(uv: str, env: dict[str, str]) -> str:
    """The best Python on PATH or kept by pyenv; else one that uv downloads."""
    folders = [Path(folder) for folder in env.get("PATH", "").split(os.pathsep) if folder]
    pyenv = Path(os.path.expanduser(env.get("PYENV_ROOT") or "~/.pyenv"))
    for version in PYTHONS:
        for folder in (*folders, *sorted(pyenv.glob(f"versions/{version}*/bin"), reverse=True)):
            for name in (f"python{version}", "python3"):
                found = probe(str(folder / name)) if os.access(folder / name, os.X_OK) else None
                if found and found.version == version:
                    return found.executable
    say(f"no Python {' or '.join(PYTHONS)} here: uv downloads one")
    if run([uv, "python", "install", "--no-bin", PYTHONS[0]], env=env):
        downloaded = ask([uv, "python", "find", "--managed-python", PYTHONS[0]], env=env)
        if downloaded:
            return downloaded
    raise Impossible("no Python 3.12 or 3.11 here or to download: install one (Debian 12: python3) and run again")


def ensure_venv(venv: Path, uv: str, env: dict[str, str]) -> None:
    """An environment whose Python runs; one that cannot run is made anew."""
    found = probe(str(venv / "bin" / "python"))
    if found and Path(found.prefix) == venv:
        if found.version not in PYTHONS:
            raise Impossible(f"{venv} has Python {found.version}, not {' or '.join(PYTHONS)}: remove it and run again")
        return
    python = find_python(uv, env)
    if not run([uv, "venv", "--quiet", "--no-project", "--clear", "--python", python, str(venv)], env=env):
        raise Impossible(f"{venv} could not be made; see the error above")


def sync(group: str) -> None:
    """Install a group's lock, once; the slow way only where the copy in the environment differs."""
    lock = ROOT / f"requirements-{group}.lock"
    venv = ROOT / (".venv-peers" if group == "peers" else ".venv")
    python, copy, unfinished = venv / "bin" / "python", venv / "locks" / lock.name, venv / "locks" / "unfinished"
    wanted = lock.read_bytes()

    def current() -> bool:
        same = copy.is_file() and copy.read_bytes() == wanted and not unfinished.exists()
        return same and probe(str(python)) is not None

    if current():
        return
    with only_one():
        if current():
            return  # another process did it while we waited
        env = environment()
        uv = find_uv(env)
        ensure_venv(venv, uv, env)
        say(f"installing {lock.name} into {venv.name}")
        install = [uv, "pip", "install", "--python", str(python), "--only-binary", ":all:", "--require-hashes"]
        install += ["--reinstall"] if unfinished.exists() else []
        copy.parent.mkdir(exist_ok=True)
        unfinished.touch()
        if not run([*install, "-r", str(lock)], env=env):
            raise Impossible(f"{lock.name} could not be installed; see the error above")
        copy.write_bytes(wanted)
        unfinished.unlink()


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the repository's install lock; the kernel lets go of it when a process dies."""
    STATE.mkdir(exist_ok=True)
    with open(STATE / "bootstrap.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another justw that is installing")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    """Run one command; failures are one line each."""
    try:
        if len(arguments) == 2 and arguments[0] == "sync":
            sync(arguments[1])
        elif arguments == ["uv"]:
            with only_one():
                print(find_uv(environment()))
        else:
            raise Impossible("usage: bootstrap.py sync GROUP | uv")
    except (Impossible, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; run again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
