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

    def choose(self, content_type: str | None, payload: bytes) -> Format | Flaw:
        """The format of ``payload``."""
        if content_type is not None:
            essence = content_type.partition(";")[0].strip().lower()
            if essence not in SAYS_NOTHING:
                return self._formats.get(essence) or self._unknown(essence)
        if payload[:1] in (b"{", b"["):
            return self._json
        return self._json_after_all if looks_like_json(payload) else self._protobuf

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
