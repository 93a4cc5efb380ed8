"""Only what the committed list names runs, byte for byte; a download is whole or not there."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.embedded.cache import cache_directory
from infra.embedded.jars import JarList, verified_jars
from infra.embedded.kafka import _JARS as KAFKA
from infra.embedded.mqtt import _JARS as ARTEMIS
from infra.embedded.ports import LOOPBACK, free_port
from schemas.errors import OperatorError

CONTENT = {"org/a/one/1.0/one-1.0.jar": b"one" * 1000, "org/b/two/2.0/two-2.0-native.jar": b"two" * 1000}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Maven repository on loopback, and a home whose jgo.conf names it."""
    files = tmp_path / "repository"
    for path, content in CONTENT.items():
        (files / path).parent.mkdir(parents=True)
        (files / path).write_bytes(content)
        Path(f"{files / path}.sha1").write_text(hashlib.sha1(content).hexdigest())
    home = tmp_path / "home"
    (home / ".config").mkdir(parents=True)
    server = ThreadingHTTPServer((LOOPBACK, 0), partial(Quiet, directory=str(files)))
    url = f"http://{LOOPBACK}:{server.server_port}"
    (home / ".config" / "jgo.conf").write_text(f"[repositories]\nlocal = {url}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("NO_PROXY", LOOPBACK)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield files
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def listed(tmp_path: Path) -> JarList:
    """A list of the repository's jars."""
    file = tmp_path / "some-jars.sha256"
    file.write_text("".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in CONTENT.items()))
    return JarList("Some Server", "1.0", file, size_mb=0)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache with a space in its path."""
    made = tmp_path / "a cache"
    made.mkdir()
    return made


def ignore(_: str) -> None:
    """Say nothing."""


@pytest.mark.usefixtures("repository")
def test_what_is_missing_is_downloaded_once_with_progress(listed: JarList, cache: Path) -> None:
    """The second call downloads nothing and says nothing."""
    said: list[str] = []
    directory = verified_jars(listed, cache, said.append)
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == {
        Path(path).name: content for path, content in CONTENT.items()
    }
    assert "downloading 2 jars" in said[0]
    assert "2 of 2 jars" in said[-1]
    said.clear()
    assert verified_jars(listed, cache, said.append) == directory
    assert not said


@pytest.mark.usefixtures("repository")
def test_two_that_begin_at_once_share_one_download(listed: JarList, cache: Path) -> None:
    """One of them finds the lock held and waits."""
    said: list[str] = []
    found: list[Path] = []
    both = [threading.Thread(target=lambda: found.append(verified_jars(listed, cache, said.append))) for _ in "12"]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]
    assert sum("downloading" in line for line in said) == 1


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("harm", ["changed", "missing", "added"])
def test_what_differs_from_the_list_is_refused(listed: JarList, cache: Path, harm: str) -> None:
    """One message that names the jar and the directory."""
    directory = verified_jars(listed, cache, ignore)
    jar = directory / "one-1.0.jar"
    if harm == "changed":
        jar.write_bytes(jar.read_bytes()[:-1] + b"!")
    elif harm == "missing":
        jar.unlink()
    else:
        (directory / "evil-1.0.jar").write_bytes(b"")
    with pytest.raises(OperatorError) as refused:
        verified_jars(listed, cache, ignore)
    assert ("evil-1.0.jar" if harm == "added" else "one-1.0.jar") in str(refused.value)
    assert str(directory) in str(refused.value)


def test_a_repository_with_another_jar_is_refused_and_nothing_is_kept(
    listed: JarList, cache: Path, repository: Path
) -> None:
    """Its own checksums agree; ours do not."""
    path = repository / "org/a/one/1.0/one-1.0.jar"
    path.write_bytes(b"evil")
    Path(f"{path}.sha1").write_text(hashlib.sha1(b"evil").hexdigest())
    with pytest.raises(OperatorError, match=r"one-1\.0\.jar has another SHA-256"):
        verified_jars(listed, cache, ignore)
    assert [file.name for file in cache.iterdir()] == ["some-server-1.0.lock"]


def test_no_way_to_a_repository_is_one_message(
    listed: JarList, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to do."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://{LOOPBACK}:{free_port()}")
    with pytest.raises(OperatorError, match="Check that this machine reaches"):
        verified_jars(listed, cache, ignore)


@pytest.mark.parametrize("jars", [KAFKA, ARTEMIS], ids=lambda jars: jars.title)
def test_the_committed_lists_are_well_formed(jars: JarList) -> None:
    """Every line is a digest and a path of a Maven repository; no file name occurs twice."""
    digests = jars.digests()
    assert len(digests) > 40
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in digests.values())
    assert len({Path(path).name for path in digests}) == len(digests)
    for path in digests:
        *_, artifact, release, file = path.split("/")
        assert file.startswith(f"{artifact}-{release}")


def test_the_cache_moves_with_xdg_cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to a path with a space."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x y"))
    assert cache_directory() == tmp_path / "x y" / "ionwax"
    assert cache_directory().is_dir()
