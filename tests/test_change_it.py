"""The patches of dataflows/README.md: they apply to the house as it is, and a changed house does what the page says."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.migrations import migrate
from tests.databases import fresh_database
from tests.telemetry_log import MINUTE_MS, Log
from tests.topology import ROOT, Topology, beside, topology, wait_for

PAGE = (ROOT / "dataflows" / "README.md").read_text()
PACKAGES = ("schemas", "connectors", "dataflows", "infra")
RUN_SECS_MAX = 120


def blocks(language: str) -> list[str]:
    """The page's blocks of this language, in its order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def copied(house: Path) -> Path:
    """A copy of the house with all of the page's patches, and its migration."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, house / package, ignore=shutil.ignore_patterns("__pycache__"))
    for patch in blocks("diff"):
        subprocess.run(["git", "apply", "-"], cwd=house, input=patch, text=True, check=True)
    (migration,) = blocks("sql")
    (house / "infra" / "timescale" / "1002_rollups_5m.sql").write_text(migration)
    return house


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, its Python of the proto files generated, too."""
    house = copied(tmp_path_factory.mktemp("house"))
    run(house, "-m", "infra.proto")
    return house


def run(house: Path, *arguments: str) -> None:
    """Let Python run this in the copy; it has to end well."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        timeout=RUN_SECS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_patches_apply_to_the_house_as_it_is(changed: Path) -> None:
    """Each file that the page shows is changed in the copy, and is Python still."""
    names = re.findall(r"^\+\+\+ b/(.+)$", PAGE, re.MULTILINE)
    assert len(names) == 6
    for name in names:
        ours = ROOT / name
        assert not ours.exists() or (changed / name).read_text() != ours.read_text()
        if name.endswith(".py"):
            compile((changed / name).read_text(), name, "exec")


def test_a_field_that_was_forgotten_is_said_at_the_start(tmp_path: Path) -> None:
    """An aggregate that the proto file, or what is generated from it, does not know yet."""
    code = "from connectors.timescale_rollups import check_tables; check_tables('', 'rollups_1m')"
    with pytest.raises(AssertionError, match=r"differ in zeros: .* run \./justw proto"):
        run(copied(tmp_path), "-c", code)


@pytest.fixture(scope="module")
def fresh_url(admin_url: str) -> Iterator[str]:
    with fresh_database(admin_url) as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, changed: Path, kafka_bootstrap: str, fresh_url: str
) -> Iterator[Topology]:
    """Five minutes of a log, on time and late, in the rows of the changed house: of one minute and of five."""
    folder = tmp_path_factory.mktemp("changed")
    with topology(folder, kafka_bootstrap, fresh_url, "mqtt://127.0.0.1:1") as flows:
        migrate(fresh_url, changed / "infra" / "timescale")
        differs = yaml.safe_load(blocks("yaml")[0])
        differs["output"]["topic"] = f"{flows.prefix}.five"
        with beside(flows, "five.yaml", **differs) as fives:
            fill(Log(flows))
            for path in (flows.settings_path, fives.settings_path):
                start(flows, changed, path)
            closed = "select count(*) from ledger where open = 0 and readings > 0"
            wait_for(lambda: flows.ask(closed) == [(2,)], "both have closed their windows", flows.state)
            yield flows


def fill(log: Log) -> None:
    """Two readings a minute of a device that speaks Fahrenheit, and a late one."""
    log.now_ms -= log.now_ms % (5 * MINUTE_MS)
    start = log.now_ms
    for minute in range(5):
        log.now_ms = start + minute * MINUTE_MS
        log.say("kettle", log.now_ms, {"temperature_f": 212.0, "level": 0.0})
        log.say("kettle", log.now_ms + 1, {"temperature_f": 32.0, "level": 1.0})
    log.now_ms = start + 5 * MINUTE_MS + 15_000
    log.tick()
    log.say("kettle", start + 2, {"temperature_f": 32.0, "level": 0.0})
    log.now_ms += 1000
    log.tick()
    log.flush()


def start(flows: Topology, house: Path, settings: Path) -> None:
    """The dataflow of the copy, with these settings; it is killed with the others of ``flows``."""
    with flows.log(settings.stem).open("ab") as log:
        flows.running[settings.stem] = subprocess.Popen(
            [sys.executable, "-m", "bytewax.run", f"dataflows.minute_rollups:flow('{settings}')", "-s", "1"],
            cwd=house,
            env={**os.environ, "PYTHONPATH": str(house), "POLARS_MAX_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


@pytest.mark.embedded
@pytest.mark.contract
@pytest.mark.long
class TestOnALog:
    """With Kafka and a database."""

    def test_fahrenheit_becomes_celsius_and_zeros_are_counted(self, told: Topology) -> None:
        """In minutes, the revised one included."""
        found = told.ask("select metric, count, min, max, zeros, revision from rollups_1m order by metric, bucket")
        assert found == [
            ("level", 3, 0.0, 1.0, 2, 1),
            *[("level", 2, 0.0, 1.0, 1, 0)] * 4,
            ("temperature", 3, 0.0, 100.0, 2, 1),
            *[("temperature", 2, 0.0, 100.0, 1, 0)] * 4,
        ]

    def test_five_minutes_are_one_row(self, told: Topology) -> None:
        """Beside the minutes, from the same log."""
        found = told.ask("select metric, count, min, max, zeros, revision from rollups_5m order by metric, bucket")
        assert found == [("level", 11, 0.0, 1.0, 6, 1), ("temperature", 11, 0.0, 100.0, 6, 1)]

    def test_the_deep_check_agrees(self, told: Topology, changed: Path) -> None:
        """The changed house's own."""
        for name in ("settings.yaml", "five.yaml"):
            run(changed, "-m", "infra.verify", "--deep", "--settings", str(told.folder / name))
