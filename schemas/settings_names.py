"""What to say about a setting that does not exist: the right unit, or the nearest right name, with its path."""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any, Final, get_type_hints

from schemas.settings import Section, Settings

# Endings of a name that tell its unit, and how many of the smallest unit of their kind one is.
_UNITS: Final = {
    "ms": ("time", 1),
    "millis": ("time", 1),
    "milliseconds": ("time", 1),
    "s": ("time", 1_000),
    "sec": ("time", 1_000),
    "secs": ("time", 1_000),
    "seconds": ("time", 1_000),
    "min": ("time", 60_000),
    "mins": ("time", 60_000),
    "minutes": ("time", 60_000),
    "hour": ("time", 3_600_000),
    "hours": ("time", 3_600_000),
    "days": ("time", 86_400_000),
    "bytes": ("size", 1),
    "kb": ("size", 1_024),
    "kib": ("size", 1_024),
    "mb": ("size", 1_048_576),
    "mib": ("size", 1_048_576),
}


def unknown(path: tuple[str, ...], value: Any) -> str:
    """Why ``path`` is no setting, and what was probably meant. The ``value`` is only repeated as a number."""
    siblings = {other[len(path) - 1]: other for other in setting_paths(sections=True) if other[:-1] == path[:-1]}
    if words := near_miss(path[-1], value, siblings):
        return words
    elsewhere = {".".join(other): other for other in setting_paths()}
    same = [dotted for dotted, other in elsewhere.items() if other[-1] == path[-1]]
    if near := same or get_close_matches(".".join(path), elsewhere, n=1, cutoff=0.75):
        return f"no such setting; did you mean {near[0]}?"
    return f"no such setting; there are {', '.join(siblings)}"


def near_miss(name: str, value: Any, siblings: Collection[str]) -> str | None:
    """Which of ``siblings`` was meant by ``name``: the same in another unit, or nearly the same."""
    for other in siblings:
        if words := _other_unit(name, other, value):
            return words
    near = get_close_matches(name, siblings, n=1)
    return f"no such setting; did you mean {near[0]}?" if near else None


def _other_unit(name: str, right: str, value: Any) -> str | None:
    """What to say if ``name`` is ``right`` with another unit."""
    (stem, unit, rest), (right_stem, right_unit, right_rest) = _parts(name), _parts(right)
    if (stem, rest) != (right_stem, right_rest) or unit == right_unit or right_unit is None:
        return None
    words = f"no such setting; the unit is in the name: {right}"
    if unit is None or _UNITS[unit][0] != _UNITS[right_unit][0] or type(value) not in (int, float):
        return words
    return f"{words}, here {right}: {value * _UNITS[unit][1] / _UNITS[right_unit][1]:.12g}"


def _parts(name: str) -> tuple[str, str | None, str]:
    """``payload_bytes_max`` as ("payload", "bytes", "max")."""
    words = name.split("_")
    for at in range(len(words) - 1, 0, -1):
        if words[at] in _UNITS:
            return "_".join(words[:at]), words[at], "_".join(words[at + 1 :])
    rest = words[-1] if words[-1] == "max" else ""
    return name.removesuffix("_max"), None, rest


def setting_paths(
    kind: type[Section] = Settings, path: tuple[str, ...] = (), sections: bool = False
) -> Iterator[tuple[str, ...]]:
    """The path of every setting; of sections too, if asked for."""
    for name, hint in get_type_hints(kind).items():
        if name not in kind.__struct_fields__:
            continue
        if isinstance(hint, type) and issubclass(hint, Section):
            if sections:
                yield (*path, name)
            yield from setting_paths(hint, (*path, name), sections)
        else:
            yield (*path, name)
