"""Rules to watches: a rule is what a person writes, a watch is what the engine runs.

Guarantee: a watch's version, which its flags carry, names all that could change a score or an episode; whom it watches
is not in it.
"""

from collections.abc import Iterable

from dataflows.anomalies.novelty import Novelty
from dataflows.anomalies.protocol import Detector
from dataflows.anomalies.rate import Rate
from dataflows.anomalies.registry import DETECTORS
from dataflows.anomalies.silence import Silence
from dataflows.anomalies.stuck import Stuck
from dataflows.anomalies.threshold import CLEAR_AT, FLAG_AT, Side, Threshold
from dataflows.anomalies.watch import Watch
from schemas.rules import NoveltyRule, PlainRule, RateRule, Rule, SilenceRule, StuckRule, ThresholdRule, patterns


def watches(rules: Iterable[Rule]) -> list[Watch]:
    """The watches of ``rules``, in their order."""
    return [watch(rule) for rule in rules]


def watch(rule: Rule) -> Watch:
    """The watch of one rule."""
    detector = _detector(rule)
    flag_at, clear_at = _levels(rule, detector)
    times = f"for={rule.for_mins};close={rule.close_after_mins};cool={rule.cool_down_mins};{rule.severity}"
    return Watch(
        name=rule.name,
        detector=detector,
        devices=patterns(rule.devices),
        metrics=patterns(rule.metrics),
        unless=[
            (device, metric)
            for one in rule.unless
            for device in patterns(one.devices)
            for metric in patterns(one.metrics)
        ],
        subject=rule.subject,
        severity=rule.severity,
        flag_at=flag_at,
        clear_at=clear_at,
        for_mins=rule.for_mins,
        close_after_mins=rule.close_after_mins,
        cool_down_mins=rule.cool_down_mins,
        outage_share=rule.outage_share if isinstance(rule, SilenceRule) else None,
        params_version=f"{detector.name} {detector.params_version};at={flag_at!r};clear={clear_at!r};{times}",
    )


def _levels(rule: Rule, detector: Detector) -> tuple[float, float]:
    """``flag_at`` and ``clear_at``."""
    match rule:
        case NoveltyRule():
            return rule.flag_at, rule.clear_at
        case PlainRule():
            flag_at = detector.flag_at if rule.flag_at is None else rule.flag_at
            return flag_at, flag_at / 2 if rule.clear_at is None else min(rule.clear_at, flag_at)
    return FLAG_AT, CLEAR_AT


def _detector(rule: Rule) -> Detector:
    """The detector of ``rule``, with its parameters."""
    match rule:
        case NoveltyRule():
            return Novelty()
        case StuckRule():
            return Stuck(rule.after_rollups, rule.learn_rollups, rule.forget_rollups, rule.once_in)
        case SilenceRule():
            return Silence(rule.after_mins, rule.learn_rollups, rule.forget_hours * 60)
        case ThresholdRule():
            return Threshold(*_limit(rule.above, rule.below), rule.clear, rule.of)
        case RateRule():
            return Rate(*_limit(rule.above, rule.below), rule.clear, float(rule.span_mins), rule.of)
    return DETECTORS[rule.detector]


def _limit(above: float | None, below: float | None) -> tuple[Side, float]:
    if above is not None:
        return "above", above
    assert below is not None, "a rule has one limit"
    return "below", below
