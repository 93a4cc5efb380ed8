"""JSON payloads: one object is a message, an array is several.

    {"device_id": "boiler-7", "ts": 1763700000000, "metrics": {"temperature": 21.5, "running": true}}

Of a key that is given twice the last one counts, as everywhere in JSON's own world and in protobuf's maps. Keys
that nobody asks for are passed over. Parsed by msgspec; what it refuses is looked at again with the standard
library, which knows the ``NaN`` and ``Infinity`` that Python's devices write, numbers beyond a double, and a byte order
mark: so one value that is not finite costs its message nothing but that value.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from dataflows.decoding.reasons import Flaw, Reason, shown
from dataflows.decoding.said import Said


class _Message(msgspec.Struct, gc=False):
    device_id: Any = None
    ts: Any = None
    metrics: Any = None


_BEGIN: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[]")
_one: Final = msgspec.json.Decoder(_Message)
_several: Final = msgspec.json.Decoder(list[_Message])


def decode_json(payload: bytes) -> Sequence[Said | Flaw] | Flaw:
    """The messages of a JSON payload."""
    try:
        if payload[:1] == b"{":
            one = _one.decode(payload)
            return (Said(one.device_id, one.ts, one.metrics),)
        several = _several.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return messages_of(parse_leniently(payload), _said_by)
    return [Said(m.device_id, m.ts, m.metrics) for m in several] or _EMPTY_ARRAY


def _said_by(document: dict[str, Any]) -> Said:
    return Said(document.get("device_id"), document.get("ts"), document.get("metrics"))


_EMPTY_ARRAY: Final = Flaw(Reason.NO_METRICS, "an empty array")


def messages_of(document: Any, say: Any) -> Sequence[Said | Flaw] | Flaw:
    """What ``say`` finds in each object of ``document``, an object or an array of them; a ``Flaw`` goes through."""
    if isinstance(document, Flaw):
        return document
    if isinstance(document, dict):
        return (say(document),)
    if isinstance(document, list):
        return [say(each) if isinstance(each, dict) else _no_object(each) for each in document] or _EMPTY_ARRAY
    return _no_object(document)


def _no_object(value: Any) -> Flaw:
    return Flaw(Reason.BAD_SHAPE, f"a message is an object, this is {shown(value)}")


def parse(payload: bytes) -> Any:
    """The document as plain values; a ``Flaw`` where it is none."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return parse_leniently(payload)


def parse_leniently(payload: bytes) -> Any:
    """The document as plain values, with numbers that are not finite, after a byte order mark; or a ``Flaw``.

    Both parsers end at the interpreter's recursion limit, of about 1,000 levels, without touching the end of the stack.
    """
    try:
        return json.loads(payload.decode("utf-8-sig"), parse_int=_integer)
    except UnicodeDecodeError as error:
        return Flaw(Reason.NOT_JSON, f"not UTF-8 at byte {error.start}")
    except RecursionError:
        return Flaw(Reason.BAD_SHAPE, "nested too deeply")
    except ValueError as error:
        return Flaw(Reason.NOT_JSON, str(error))


def _integer(digits: str) -> int | float:
    """An integer; what is beyond a double anyway is infinite, and costs no quadratic time."""
    return int(digits) if len(digits) <= 309 else float(digits)


def looks_like_json(payload: bytes) -> bool:
    """Whether the first character, after white space or a byte order mark, is ``{`` or ``[``."""
    return _BEGIN.match(payload) is not None
