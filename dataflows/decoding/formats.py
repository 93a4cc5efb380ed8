"""The registry of payload formats: which function decodes which MQTT payload.

An MQTT 5 ``content-type`` decides where it names a format. Where there is none, or one that says nothing
(``text/plain``, ``application/octet-stream``), a payload that begins with ``{`` or ``[`` is JSON, anything else is
protobuf.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from dataflows.decoding.json_paths import compile_paths
from dataflows.decoding.json_payload import decode_json, looks_like_json
from dataflows.decoding.protobuf_payload import decode_protobuf
from dataflows.decoding.reasons import Flaw, Reason, shown
from dataflows.decoding.said import Format, Said

FORMATS: Final[Mapping[str, Format]] = {
    "application/json": decode_json,
    "text/json": decode_json,
    "application/protobuf": decode_protobuf,
    "application/x-protobuf": decode_protobuf,
    "application/vnd.google.protobuf": decode_protobuf,
}
_AFTER_SPACE: Final = frozenset(bytes((byte,)) for byte in b"\t\n\r {[\xef") | {b""}  # what JSON may go on with
SAYS_NOTHING: Final = frozenset({"", "text/plain", "application/octet-stream"})


class Formats:
    """The formats of FORMATS, and those of the settings under their own names, which may replace some.

    A name in the settings is a content type. ``application/json`` is also the shape of JSON that comes without one.
    Raises ``OperatorError`` for a format that is not understood.
    """

    def __init__(self, by_settings: Mapping[str, Mapping[str, str]]) -> None:
        own = {name.lower(): compile_paths(name, paths) for name, paths in by_settings.items()}
        self._formats: Mapping[str, Format] = {**FORMATS, **own}
        self._json = self._formats["application/json"]
        self._protobuf = self._formats["application/protobuf"]

    def choose_all(self, content_types: Sequence[str | None], payloads: Sequence[bytes]) -> Sequence[Format | Flaw]:
        """The format of each of ``payloads``."""
        named = {content_type: self._named(content_type) for content_type in set(content_types)}
        if len(named) == 1 and (form := named[content_types[0]]) is not None:
            return [form] * len(payloads)
        protobuf = self._protobuf
        return [
            # A ``Telemetry`` begins with its device id; 0x0A is also white space, which JSON may begin with.
            protobuf
            if named[content_type] is None and payload[:1] == b"\n" and payload[1:2] not in _AFTER_SPACE
            else self.choose(content_type, payload)
            for content_type, payload in zip(content_types, payloads, strict=True)
        ]

    def choose(self, content_type: str | None, payload: bytes) -> Format | Flaw:
        """The format of ``payload``."""
        if (form := self._named(content_type)) is not None:
            return form
        if payload[:1] in (b"{", b"["):
            return self._json
        return self._json_after_all if looks_like_json(payload) else self._protobuf

    def _named(self, content_type: str | None) -> Format | Flaw | None:
        """The format that ``content_type`` names; None where the payload has to tell."""
        if content_type is None:
            return None
        essence = content_type.partition(";")[0].strip().lower()
        return None if essence in SAYS_NOTHING else self._formats.get(essence) or self._unknown(essence)

    def _unknown(self, essence: str) -> Flaw:
        known = ", ".join(sorted(self._formats))
        return Flaw(Reason.UNKNOWN_SCHEMA, f"content-type {shown(essence)}: no such format; known are {known}"[:500])

    def _json_after_all(self, payload: bytes) -> Sequence[Said | Flaw] | Flaw:
        """JSON after white space or a byte order mark, unless it is protobuf.

        b"\\n{" also begins a device id of 123 bytes. No payload is both: a ``Telemetry`` with metrics holds the byte
        0x1A, which JSON never does.
        """
        said = self._json(payload)
        if isinstance(said, Flaw) and said.reason is Reason.NOT_JSON:
            telemetry = self._protobuf(payload)
            return said if isinstance(telemetry, Flaw) else telemetry
        return said
