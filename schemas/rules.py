"""Rules: whom to watch, by which detector, and when that makes an episode; ``rules_file`` reads them.

Every rule that matches applies, by itself: each has a name, a state and episodes of its own, and order means nothing.
Units stand at the end of a name. ``infra/settings/rules.yaml`` comments every key once.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, get_args

from msgspec import Meta

from schemas.settings import Section

NAME_BYTES_MAX: Final = 256  # of a device id and of a metric, as decoding has it
PIPELINE: Final = "pipeline"  # what flags of our own outage carry in place of a rule's name
YEAR_MINS: Final = 366 * 1_440

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Patterns = str | Annotated[tuple[str, ...], Meta(min_length=1)]
Mins = Annotated[int, Meta(ge=0, le=YEAR_MINS)]
SomeMins = Annotated[int, Meta(ge=1, le=YEAR_MINS)]
Rollups = Annotated[int, Meta(ge=1, le=2**30)]
Level = Annotated[float, Meta(gt=0, le=1)]
Statistic = Literal["mean", "min", "max"]
Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[Sequence[str]] = get_args(Severity)  # the gravest last


class Unless(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule leaves out, though its patterns match: series whose device and metric match these."""

    devices: Patterns = "*"
    metrics: Patterns = "*"

    def __post_init__(self) -> None:
        _check_patterns(devices=self.devices, metrics=self.metrics)


class Rule(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all rules have."""

    subject: ClassVar[Literal["series", "device"]] = "series"

    name: Name
    detector: str = ""
    enabled: bool = True
    devices: Patterns = "*"
    metrics: Patterns = "*"
    unless: tuple[Unless, ...] = ()
    severity: Severity = "warning"
    for_mins: SomeMins = 1
    close_after_mins: SomeMins = 5
    cool_down_mins: Mins = 0

    def __post_init__(self) -> None:
        if self.name == PIPELINE:
            raise ValueError(f"{PIPELINE} is the name of the pipeline's own flags; choose another")
        _check_patterns(devices=self.devices, metrics=self.metrics)
        for one in self.unless:
            if _covers(one.devices, self.devices) and _covers(one.metrics, self.metrics):
                raise ValueError("unless leaves out all that devices and metrics choose")


class _Limit(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    of: Statistic = "mean"
    above: float | None = None
    below: float | None = None
    clear: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.above is None) == (self.below is None):
            raise ValueError("give one limit, above or below; both sides are two rules")
        if self.clear is None:
            return
        if self.above is not None and self.clear > self.above:
            raise ValueError(f"clear: {self.clear:g} is on the wrong side of above: {self.above:g}; clear at less")
        if self.below is not None and self.clear < self.below:
            raise ValueError(f"clear: {self.clear:g} is on the wrong side of below: {self.below:g}; clear at more")


class ThresholdRule(_Limit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class RateRule(_Limit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    span_mins: SomeMins = 5


class StuckRule(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after_rollups: Rollups = 15
    learn_rollups: Rollups = 2_880
    forget_rollups: Rollups = 43_200
    once_in: Annotated[float, Meta(ge=10, le=1e100)] = 1e15
    cool_down_mins: Mins = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forget_rollups <= self.after_rollups:
            raise ValueError("forget_rollups is not above after_rollups: nothing would ever be stuck")


class SilenceRule(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    subject: ClassVar[Literal["series", "device"]] = "device"

    after_mins: SomeMins = 10
    learn_rollups: Rollups = 60
    forget_hours: Annotated[int, Meta(ge=1, le=87_600)] = 168
    outage_share: Annotated[float, Meta(gt=0, le=1)] | None = 0.5
    cool_down_mins: Mins = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forget_hours * 60 <= self.after_mins:
            raise ValueError("forget_hours is not above after_mins: no device would ever be missed")


class NoveltyRule(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    flag_at: Level = 0.35
    clear_at: Level = 0.2
    close_after_mins: SomeMins = 120
    cool_down_mins: Mins = 120

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clear_at > self.flag_at:
            raise ValueError(f"clear_at: {self.clear_at:g} is above flag_at: {self.flag_at:g}; clear at less")


class PlainRule(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule of a detector without settings of its own; levels that are left out are the detector's."""

    flag_at: Level | None = None
    clear_at: Level | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flag_at is not None and self.clear_at is not None and self.clear_at > self.flag_at:
            raise ValueError(f"clear_at: {self.clear_at:g} is above flag_at: {self.flag_at:g}; clear at less")


KINDS: Final[Mapping[str, type[Rule]]] = {
    "novelty": NoveltyRule,
    "stuck": StuckRule,
    "silence": SilenceRule,
    "threshold": ThresholdRule,
    "rate": RateRule,
}
"""The rules there are, by the detector they name; of any other detector a ``PlainRule`` is made."""

ALWAYS: Final[Sequence[str]] = ("novelty", "stuck", "silence")
"""On without any rule, for everything, under the name of their detector; a rule of that name takes the place of one."""


def patterns(given: Patterns) -> tuple[str, ...]:
    """One pattern or several, as several."""
    return (given,) if isinstance(given, str) else given


def defaults() -> dict[str, Rule]:
    """What is on without any rule, by name."""
    return {name: KINDS[name](name=name, detector=name) for name in ALWAYS}


def _covers(outer: Patterns, inner: Patterns) -> bool:
    """Whether it is plain that all of ``inner`` matches ``outer``."""
    return "*" in patterns(outer) or set(patterns(inner)) <= set(patterns(outer))


def _check_patterns(**given: Patterns) -> None:
    """Raises for a pattern that no name can match: names have 1 to 256 bytes and no control characters."""
    for key, several in given.items():
        for pattern in patterns(several):
            if words := _hopeless(pattern):
                raise ValueError(f"{key}: {pattern!r} can match nothing: {words}")


def _hopeless(pattern: str) -> str | None:
    if pattern == "":
        return "it is empty; * is everything"
    if re.search(r"[\x00-\x1f\x7f-\x9f]", pattern):
        return "names have no control characters"
    if pattern != pattern.strip():
        return "it begins or ends with a space; remove that, or write ? for it"
    if any(low > high for low, high in re.findall(r"\[!?[^\]]*?(.)-([^\]])[^\]]*\]", pattern)):
        return "a range runs backwards; write [a-z], not [z-a]"
    literal = re.sub(r"\[!?\]?[^\]]*\]|\*", "", pattern)
    if len(literal.encode()) > NAME_BYTES_MAX:
        return f"names have {NAME_BYTES_MAX} bytes at most"
    return None
