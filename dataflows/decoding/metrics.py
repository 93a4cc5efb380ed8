"""The metrics of one message, sifted: the good ones go on, whatever the others are.

A number is good if it is finite as a double; booleans are 0 and 1; null is an absent metric.
"""

from collections.abc import Collection, Iterable, Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from dataflows.decoding.names import NAME_BYTES_MAX, Names
from dataflows.decoding.reasons import Flaw, Reason, shown

LISTED_CHARS_MAX: Final = 900


class Sifted(NamedTuple):
    """``good`` metrics by name, and the flaw of the others, if any. Where nothing is good there is a flaw."""

    good: Mapping[str, float]  # or integers and booleans, which are as good
    flaw: Flaw | None


def sift(metrics: Any, names: Names, metrics_max: int) -> Sifted:
    """Part the good metrics of a message from those that are none. ``metrics`` is any JSON value."""
    if not isinstance(metrics, dict):
        if metrics is None:
            return Sifted({}, Flaw(Reason.NO_METRICS, "the message has no metrics"))
        return Sifted({}, Flaw(Reason.BAD_SHAPE, f"metrics are {shown(metrics)}, not an object"))
    if len(metrics) > metrics_max:
        return Sifted({}, Flaw(Reason.TOO_MANY_METRICS, f"{len(metrics)} metrics; {metrics_max} are taken"))
    if metrics.keys() <= names.right and _add_up(metrics.values()):
        return Sifted(metrics, None)  # nearly always
    good: dict[str, float] = {}
    refused: list[tuple[str, Flaw]] = []
    for name, value in metrics.items():
        if value is None:
            continue
        if flaw := _flaw_in(name, value, names):
            refused.append((name, flaw))
        else:
            good[name] = float(value)
    if refused:
        return Sifted(good, _summary(refused))
    return Sifted(good, None if good else Flaw(Reason.NO_METRICS, "the message has no metrics"))


def _add_up(values: Collection[Any]) -> bool:
    """Whether there are values, all numbers, and all finite: quickly, and in doubt False.

    A sum is finite only if each of its terms is, and begun with a double it takes no integer beyond one.
    """
    try:
        return len(values) > 0 and isfinite(sum(values, 0.0))
    except (TypeError, OverflowError):
        return False


def _flaw_in(name: str, value: Any, names: Names) -> Flaw | None:
    if words := names.flaw_in(name):
        return Flaw(Reason.BAD_NAME, words)
    if not isinstance(value, float | int):
        return Flaw(Reason.NOT_A_NUMBER, f"is {'a string' if isinstance(value, str) else shown(value)}")
    try:
        finite = isfinite(value)
    except OverflowError:  # an integer beyond the largest double
        finite = False
    return None if finite else Flaw(Reason.NOT_A_NUMBER, "is not finite")


def _summary(refused: Iterable[tuple[str, Flaw]]) -> Flaw:
    """One flaw for all: the reason of the first, and the names with what is wrong with each."""
    (_, first), *_ = refused = list(refused)
    words: list[str] = []
    for name, flaw in refused:
        if sum(map(len, words)) > LISTED_CHARS_MAX:
            words.append(f"and {len(refused) - len(words)} more")
            break
        words.append(f"metric {shown(name, NAME_BYTES_MAX)} {flaw.detail}")
    return Flaw(first.reason, "; ".join(words))
