"""A file of rules, read: YAML in, all rules by name or one message out.

    rules:
      - name: too-hot
        detector: threshold
        metrics: temperature
        above: 90
        clear: 85

What is on without any rule (``rules.ALWAYS``) is among them; a rule of that name takes its place. Guarantee: what is
wrong is named by line and path, all of it at once.
"""

import math
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec

from schemas.errors import OperatorError
from schemas.rules import ALWAYS, KINDS, PlainRule, Rule, Unless, defaults
from schemas.settings import Section
from schemas.settings_names import near_miss
from schemas.yaml_file import Problem, in_words, message, read

REFERENCE: Final = "infra/settings/rules.yaml"
RULES_MAX: Final = 1_000


def load_rules(path: str | Path, detectors: Collection[str] = KINDS.keys()) -> dict[str, Rule]:
    """The rules in the file ``path`` that are enabled, the defaults among them. Raises ``OperatorError``.

    ``detectors`` are those that rules may name: those of ``rules.KINDS``, and others without settings of their own.
    """
    document, lines = read(Path(path), "rules file", REFERENCE)
    problems = [
        Problem((str(key),), f"no such section; a file of rules has one, rules, as {REFERENCE} has")
        for key in document
        if key != "rules"
    ]
    given = document.get("rules", [])
    rules: dict[str, Rule] = {}
    if not isinstance(given, list) and given != {}:
        problems.append(Problem(("rules",), "is a list; begin each rule with a dash, as `- name: too-hot`"))
    elif len(given) > RULES_MAX:
        problems.append(Problem(("rules",), f"{len(given)} rules are more than {RULES_MAX}: let patterns choose"))
    else:
        labels = _labels(given)
        lines = {_named(path, labels): line for path, line in lines.items()}
        rules = _rules(given, labels, detectors, problems)
    if problems:
        raise OperatorError(message(Path(path), problems, lines))
    return {name: rule for name, rule in (defaults() | rules).items() if rule.enabled}


def _rules(given: list[Any], labels: list[str], detectors: Collection[str], problems: list[Problem]) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for label, one in zip(labels, given, strict=True):
        rule = _rule(("rules", label), one, detectors, problems)
        if rule is not None and rule.name in rules:
            problems.append(Problem(("rules", label), f"another rule is called {rule.name}; flags could not tell them"))
        elif rule is not None:
            rules[rule.name] = rule
    return rules


def _labels(given: list[Any]) -> list[str]:
    """What messages call each rule: its name, or its number where it has none, or has that of another."""
    labels: list[str] = []
    for number, one in enumerate(given, 1):
        name = one.get("name") if isinstance(one, dict) else None
        labels.append(name if isinstance(name, str) and name and name not in labels else f"#{number}")
    return labels


def _named(path: tuple[str, ...], labels: list[str]) -> tuple[str, ...]:
    """The path of a line with a rule's label for its index."""
    return (path[0], labels[int(path[1])], *path[2:]) if len(path) > 1 and path[0] == "rules" else path


def _rule(path: tuple[str, ...], given: Any, detectors: Collection[str], problems: list[Problem]) -> Rule | None:
    if not isinstance(given, dict):
        problems.append(Problem(path, "is no rule; give its settings below its name, as `- name: too-hot`"))
        return None
    name = given.get("name")
    detector = given.get("detector", name if name in ALWAYS else None)
    if detector is None:
        problems.append(Problem(path, f"says no detector; give one of {', '.join(detectors)}"))
        return None
    if not isinstance(detector, str) or detector not in detectors:
        near = get_close_matches(str(detector), detectors, n=1)
        all_ = ", ".join(detectors)
        hint = f"did you mean {near[0]}? There are {all_}" if near else f"give one of {all_}"
        problems.append(Problem((*path, "detector"), f"no such detector; {hint}"))
        return None
    if name in ALWAYS and detector != name:
        problems.append(Problem((*path, "name"), f"{name} is the rule of the detector {name}; choose another name"))
        return None
    rule = _section(KINDS.get(detector, PlainRule), path, given | {"detector": detector}, problems)
    assert rule is None or isinstance(rule, Rule)
    return rule


def _section(kind: type[Section], path: tuple[str, ...], given: Any, problems: list[Problem]) -> Section | None:
    """A ``kind`` with what is ``given`` for it; None where ``problems`` grew."""
    if not isinstance(given, dict):
        problems.append(Problem(path, "needs names with values, as `- devices: boiler-9`"))
        return None
    before = len(problems)
    values: dict[str, Any] = {}
    types = get_type_hints(kind, include_extras=True)
    for key, value in given.items():
        here = (*path, str(key))
        if key not in kind.__struct_fields__:
            problems.append(Problem(here, _unknown(kind, str(key), value)))
        elif key == "unless" and isinstance(value, list):
            parts = [_section(Unless, (*here, str(index)), one, problems) for index, one in enumerate(value)]
            values[key] = tuple(part for part in parts if part is not None)
        else:
            try:
                values[key] = msgspec.convert(value, types[key])
            except msgspec.ValidationError as error:
                problems.append(Problem(here, _words(types[key], key, error)))
            else:
                if isinstance(values[key], float) and not math.isfinite(values[key]):
                    problems.append(Problem(here, "expected a finite number"))
    if issubclass(kind, Rule) and "name" not in given:
        problems.append(Problem(path, "has no name; flags carry it"))
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except ValueError as error:
        problems.append(Problem(path, str(error)))
        return None


def _unknown(kind: type[Section], key: str, value: Any) -> str:
    """Why ``key`` is no setting of such a rule, and what was probably meant."""
    if words := near_miss(key, value, kind.__struct_fields__):
        return words
    owners = [name for name, other in KINDS.items() if key in other.__struct_fields__]
    if owners:
        return f"no such setting here; rules of the detector {' and '.join(owners)} have it"
    return f"no such setting; there are {', '.join(kind.__struct_fields__)}"


def _words(kind: Any, key: str, error: msgspec.ValidationError) -> str:
    if key == "name":
        return "1 to 64 letters, digits, dots, dashes and underscores are a name"
    if key in ("devices", "metrics"):
        return "expected a pattern in quotes, or a list of them"
    if key == "unless":
        return "expected a list, as `- devices: boiler-9`"
    return in_words(kind, error)
