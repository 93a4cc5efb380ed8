"""Rules become watches."""

from pathlib import Path

import msgspec
import pytest

import dataflows.anomalies.rules as module
from dataflows.anomalies.novelty import Novelty
from dataflows.anomalies.protocol import Detector
from dataflows.anomalies.registry import DETECTORS
from dataflows.anomalies.rules import watch, watches
from schemas.errors import OperatorError
from schemas.rules import KINDS, RateRule, Rule, SilenceRule, StuckRule, ThresholdRule, Unless, defaults
from schemas.rules_file import load_rules

LEAST = {"threshold": {"above": 1.0}, "rate": {"above": 1.0}}


def _rule(kind: str, **more: object) -> Rule:
    return KINDS[kind](**{"name": "x", "detector": kind, **LEAST.get(kind, {}), **more})


def test_every_kind_of_rule_has_its_detector() -> None:
    """What a rule can name, the registry has, and the watch runs that."""
    assert set(KINDS) <= set(DETECTORS)
    for name in KINDS:
        assert isinstance(watch(_rule(name)).detector, type(DETECTORS[name]))


@pytest.mark.parametrize("kind", ["novelty", "stuck", "silence"])
def test_a_rule_that_says_nothing_is_the_detector_as_it_comes(kind: str) -> None:
    """Defaults stand in two places, for people and for code; they are the same."""
    made: Detector = watch(_rule(kind)).detector
    assert DETECTORS[kind] == made


def test_limits_reach_the_detector() -> None:
    """Side, limit, clear, statistic and span."""
    threshold = watch(ThresholdRule(name="x", above=90.0, clear=85.0, of="max")).detector
    rate = watch(RateRule(name="x", below=-2.0, span_mins=7)).detector
    assert "1;max;above=90.0;clear=85.0" == threshold.params_version
    assert "1;mean;below=-2.0;clear=-2.0;span=7.0" == rate.params_version


def test_patterns_choose_and_leave_out() -> None:
    """One pattern or a list of them; each exception is a pair."""
    rule = ThresholdRule(
        name="x",
        above=1.0,
        devices=("boiler-*", "pump-1"),
        unless=(Unless(devices=("boiler-9", "boiler-8")), Unless(metrics="pressure")),
    )
    matches = watch(rule).matches
    assert matches("boiler-1", "temperature")
    assert matches("pump-1", "temperature")
    assert not matches("pump-2", "temperature")
    assert not matches("boiler-9", "temperature")
    assert not matches("boiler-8", "temperature")
    assert not matches("boiler-1", "pressure")


def test_silence_is_of_devices_and_knows_an_outage() -> None:
    """The others are of series, and do not."""
    assert [("series", None), ("series", None), ("device", 0.5)] == [
        (each.subject, each.outage_share) for each in watches(defaults().values())
    ]
    assert watch(SilenceRule(name="x", outage_share=None)).outage_share is None


def test_any_change_that_matters_is_another_version() -> None:
    """Of times, levels, severity and parameters; not of patterns."""
    for kind, rule_of in KINDS.items():
        plain = watch(_rule(kind))
        changed = {"for_mins": 7, "close_after_mins": 7, "cool_down_mins": 7, "severity": "info"}
        changed |= {
            field.name: field.default + 1 if isinstance(field.default, int) else field.default * 0.9
            for field in msgspec.structs.fields(rule_of)
            if isinstance(field.default, int | float) and field.name not in ("enabled", "outage_share", *changed)
        }
        for name, value in changed.items():
            assert plain.params_version != watch(_rule(kind, **{name: value})).params_version, (kind, name)
        assert plain.params_version == watch(_rule(kind, devices="a*")).params_version


def test_limits_of_stuck_rules_reach_the_detector() -> None:
    """All four."""
    rule = StuckRule(name="x", after_rollups=2, learn_rollups=10, forget_rollups=100, once_in=50.0)
    assert "1;after=2;learn=10;forget=100;once_in=50.0" == watch(rule).detector.params_version


def test_a_detector_needs_no_kind_of_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file and one line of the registry: a rule can name it, with levels and times, and the watch runs it."""
    other = Novelty(name="other", flag_at=0.8)
    monkeypatch.setattr(module, "DETECTORS", {**DETECTORS, "other": other})
    file = tmp_path / "rules.yaml"
    file.write_text(
        "rules:\n  - {name: a, detector: other}\n  - {name: b, detector: other, flag_at: 0.5, clear_at: 0.1}\n"
    )
    rules = load_rules(file, [*DETECTORS, "other"])
    assert watch(rules["a"]).detector is other
    assert [(0.8, 0.4), (0.5, 0.1)] == [(each.flag_at, each.clear_at) for each in map(watch, (rules["a"], rules["b"]))]
    with pytest.raises(OperatorError, match=r"rules\.a\.detector: no such detector"):
        load_rules(file)
