"""Running demos are found for as long as they run, and no longer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra import running
from schemas.errors import OperatorError

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = {"MQTT_URL": "mqtt://a:1", "KAFKA_BOOTSTRAP_SERVERS": "b:2", "DATABASE_URL": "postgresql://u:p=1@c:3/d"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))


def other_demo(url: str) -> "subprocess.Popen[str]":
    """Another process that has announced itself."""
    script = (
        "import sys; from infra.running import announced\n"
        f"with announced({ADDRESSES | {'MQTT_URL': url}!r}):\n    print('announced', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "announced\n"
    return process


def end(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> None:
    process.send_signal(number)
    process.communicate()


def test_the_newest_that_runs_is_found():
    """Of two the younger; when it ends, the elder again; after both, none."""
    elder, younger = other_demo("mqtt://elder"), other_demo("mqtt://younger")
    try:
        assert running.find(environ={}) == ADDRESSES | {"MQTT_URL": "mqtt://younger"}
        end(younger)
        assert running.find("MQTT_URL", environ={})["MQTT_URL"] == "mqtt://elder"
    finally:
        end(younger)
        end(elder)
    with pytest.raises(OperatorError, match=r"start \./justw demo, or set MQTT_URL"):
        running.find("MQTT_URL", environ={})


def test_one_that_was_killed_is_not_found_and_leaves_nothing(tmp_path):
    """Its file is there still; its lock is not."""
    killed = other_demo("mqtt://killed")
    end(killed, signal.SIGKILL)
    assert list(tmp_path.rglob("*.env"))
    with pytest.raises(OperatorError, match="no demo is running"):
        running.find(environ={})
    assert not list(tmp_path.rglob("*.env"))


def test_the_environment_comes_first():
    """A name that is set is taken as it is; the demo answers for the others only."""
    with running.announced(ADDRESSES):
        found = running.find(environ={"DATABASE_URL": "postgresql://mine"})
        assert found == ADDRESSES | {"DATABASE_URL": "postgresql://mine"}
    assert running.find("DATABASE_URL", environ={"DATABASE_URL": "x"}) == {"DATABASE_URL": "x"}
    with pytest.raises(OperatorError, match="set MQTT_URL and KAFKA_BOOTSTRAP_SERVERS"):
        running.find(environ={"DATABASE_URL": "x"})


def test_what_is_announced_is_for_its_owner_alone():
    """One of the addresses holds a password."""
    with running.announced(ADDRESSES) as path:
        assert path.stat().st_mode & 0o077 == 0
        assert running.find(environ=dict(os.environ) | {"MQTT_URL": ""})["DATABASE_URL"] == ADDRESSES["DATABASE_URL"]
    assert not path.exists()
