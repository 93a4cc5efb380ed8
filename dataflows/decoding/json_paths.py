"""Other JSON shapes, by settings: where in a document the device id, the time and the metrics are.

    decoding:
      formats:
        application/vnd.acme+json: {device_id: $.dev.id, ts: $.t, metrics: $.data}

A path is the part of RFC 9535 that names one value: ``$``, then ``.name``, ``['any name']`` or ``[0]``. With
``metrics: $`` every key of the document is a metric, but for those that the other two paths begin with.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dataflows.decoding.json_payload import messages_of, parse
from dataflows.decoding.reasons import Flaw
from dataflows.decoding.said import Format, Said
from schemas.errors import OperatorError

Path = tuple[str | int, ...]

_STEP: Final = re.compile(r"""\.(?P<name>[^\W\d][\w-]*)|\[(?:'(?P<one>[^']+)'|"(?P<two>[^"]+)"|(?P<index>\d{1,6}))\]""")
_KEYS: Final = ("device_id", "ts", "metrics")


def compile_paths(name: str, paths: Mapping[str, str]) -> Format:
    """The format ``name`` of the settings as a function. Raises ``OperatorError`` where it is not understood."""
    where = f"decoding.formats.{name}"
    for key in paths:
        if key not in _KEYS:
            raise OperatorError(f"{where}.{key}: no such key; a format has {', '.join(_KEYS)}")
    if "metrics" not in paths:
        raise OperatorError(f"{where}: says not where the metrics are; give metrics, for example $.metrics")
    device_id, ts, metrics = (_path(f"{where}.{key}", paths[key]) if key in paths else None for key in _KEYS)
    if () in (device_id, ts):
        raise OperatorError(f"{where}: device_id and ts cannot be the whole document ($)")
    other = {path[0] for path in (device_id, ts) if path} if metrics == () else set()

    def say(document: dict[str, Any]) -> Said:
        found = _follow(document, metrics)
        if other:
            found = {key: value for key, value in found.items() if key not in other}
        return Said(_follow(document, device_id), _follow(document, ts), found)

    def decode(payload: bytes) -> Sequence[Said | Flaw] | Flaw:
        return messages_of(parse(payload), say)

    return decode


def _path(where: str, text: str) -> Path:
    """``$.dev['the id'][0]`` as ("dev", "the id", 0)."""
    steps: list[str | int] = []
    at = 1
    while text[:1] == "$" and at < len(text) and (step := _STEP.match(text, at)):
        steps.append(int(step["index"]) if step["index"] else step["name"] or step["one"] or step["two"])
        at = step.end()
    if text[:1] != "$" or at < len(text):
        raise OperatorError(f"{where}: {text!r} is not a path; one looks like $.dev.id, $['the id'] or $.data[0]")
    return tuple(steps)


def _follow(document: Any, path: Path | None) -> Any:
    """The value at ``path``; None where there is none."""
    if path is None:
        return None
    for step in path:
        if isinstance(step, int):
            document = document[step] if isinstance(document, list) and step < len(document) else None
        else:
            document = document.get(step) if isinstance(document, dict) else None
    return document
