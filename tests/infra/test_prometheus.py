"""The alert rules wake somebody for what they say, by metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from infra.prometheus.dashboard import PANELS, dashboard
from infra.prometheus.table import metrics_table

FOLDER = Path(__file__).parents[2] / "infra" / "prometheus"
needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool (Debian: prometheus) is not installed"
)


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_configuration() -> None:
    """And the rules it names."""
    promtool("check", "config", "prometheus.yaml")


@needs_promtool
def test_alerts_fire_and_stay_calm_as_they_should() -> None:
    """On series that are made up, to the label and the word."""
    promtool("test", "rules", "alerts_test.yaml")


@needs_promtool
def test_a_rule_that_never_fires_is_noticed(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    rules = tmp_path / "alerts.yaml"
    rules.write_text(rules.read_text().replace("ionwax_waiting_seconds > 60", "ionwax_waiting_seconds > 600"))
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yaml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode != 0


def test_every_alert_is_seen_to_fire() -> None:
    """In alerts_test.yaml, with what it says then."""
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in group["rules"]}


@pytest.mark.parametrize("file", ["alerts.yaml", "grafana.json"])
def test_what_is_asked_for_is_served(file: str) -> None:
    """A metric that was renamed takes its alerts and panels along without a word."""
    known = set(re.findall(r"^\| `(\w+)`", metrics_table(), re.M))
    named = {name.removesuffix("_bucket") for name in re.findall(r"\bionwax_\w+", (FOLDER / file).read_text())}
    assert len(named) > 10
    assert named - known == set()


def test_the_dashboard_is_current() -> None:
    """``python -m infra.prometheus.dashboard`` writes it; no two panels lie on each other."""
    assert (FOLDER / "grafana.json").read_text("utf-8") == dashboard()
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in json.loads(dashboard())["panels"]]
    assert len(places) == len(set(places)) == len(PANELS)


@needs_promtool
def test_the_dashboards_expressions_are_prometheuss(tmp_path: Path) -> None:
    """As rules, with Grafana's variables filled in."""
    expressions = [panel.expression.replace("$__rate_interval", "5m").replace("$flow", ".*") for panel in PANELS]
    rules = [{"record": f"panel:number:{n}", "expr": expression} for n, expression in enumerate(expressions)]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(path))
