"""YAML files that an operator writes: what stands where, and what is wrong in which line.

Rule: no value of a file is repeated in a message of this module; it can be a secret. Guarantee: what is wrong is named
by line and path, all of it at once.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
import yaml

from schemas.errors import OperatorError

FILE_BYTES_MAX: Final = 1_048_576

_TYPES: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "nothing",
    "object": "names with values",
    "array": "a list",
}

Lines = Mapping[tuple[str, ...], int]
"""The line of each path; an entry of a list has its index for a name."""


class Problem(NamedTuple):
    """Something wrong in the file: the dotted path of the setting, and what."""

    path: tuple[str, ...]
    words: str


def message(path: Path, problems: Sequence[Problem], lines: Lines) -> str:
    """All problems, a line each, with the line of the file that each is in."""
    words = []
    for problem in problems:
        line = next(
            (lines[problem.path[:n]] for n in range(len(problem.path), 0, -1) if problem.path[:n] in lines), None
        )
        where = str(path) if line is None else f"{path}:{line}"
        words.append(": ".join(filter(None, (where, ".".join(problem.path), problem.words))))
    return "\n".join(words)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which no key stands twice: of two values one would be ignored without a word."""


def read(path: Path, kind: str, like: str) -> tuple[dict[Any, Any], Lines]:
    """The document, and the line of each of its paths. Raises ``OperatorError``, where it may say how ``like`` does."""
    loader = None
    try:
        loader = _Loader(_bytes(path, kind, like))
        node = loader.get_single_node()
        lines = dict(_lines(node, ()))
        document = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        # Nothing between quotes: it may be a piece of a password that YAML takes for an alias or a tag.
        problem = re.split("[\"']", error.problem or "cannot be read")[0].strip()
        raise OperatorError(f"{path}:{line}: not YAML: {problem}; values with special characters need quotes") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise OperatorError(f"{path}: not YAML: it cannot be read as text, or is nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()
    if document is None:
        raise OperatorError(f"{path}: is empty; give at least one setting, as in {like}")
    if not isinstance(document, dict):
        raise OperatorError(f"{path}: holds no sections; begin as {like} does")
    return {section: {} if value is None else value for section, value in document.items()}, lines


def _bytes(path: Path, kind: str, like: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        others = sorted(str(other) for other in path.parent.glob("*.yaml"))
        there = f"; there are {', '.join(others)}" if others else ""
        raise OperatorError(f"{path}: no such {kind}{there}. {like} is one to copy.") from None
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise OperatorError(f"{path}: is no {kind}: larger than {FILE_BYTES_MAX} bytes")
    return content


def _lines(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Path and line of each key and entry, as deep as files go. Raises where a key stands twice in one mapping."""
    if len(path) > 4:
        return
    if isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, str(index)), value.start_mark.line + 1
            yield from _lines(value, (*path, str(index)))
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if key.value in seen and isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "this key stands twice", key.start_mark)
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        yield (*path, str(key.value)), key.start_mark.line + 1
        yield from _lines(value, (*path, str(key.value)))


def in_words(kind: Any, error: msgspec.ValidationError) -> str:
    """The error in an operator's words, and without the value."""
    words = str(error).partition(" - at")[0]
    if get_origin(kind) is Literal:
        return f"give one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is frozenset and get_origin(choice := get_args(kind)[0]) is Literal:
        return f"give a list of some of {', '.join(get_args(choice))}, or of none: []"
    if words.startswith(("Expected `str`, got", "Expected `str | null`, got")):
        return "expected text; put the value in quotes"
    words = words.replace("`bool | int | float | str`", "a single value")
    words = re.sub("`([a-z]+)`", lambda name: _TYPES.get(name[1], name[1]), words)
    return words[:1].lower() + words[1:]
