"""The fleet's record of what it sent: exact also when the fleet is killed at any instant.

The file is NDJSON, only appended to. Its first line is the head; each other line is an object with one of these shapes:

    {"n": 17, "sent_at": 1763700000123, "topic": "devices/boiler-1/telemetry", "payload": "{…}", "fault": "late"}
    {"acked": [[17, 17], [19, 24]], "at": 1763700000130}        PUBACKs received, as ranges of n, both ends included
    {"refused": [18], "reason": 151, "at": 1763700000131}       PUBACKs with a reason of failure (MQTT 5, 2.4)
    {"resent": [[19, 21]], "at": 1763700000140}                 sent again after a reconnect: may arrive twice
    {"ended": true, "at": 1763700000150}                        the fleet ended by itself, and nothing was cut off

``n`` counts from 0 in the order of sending. A payload that is not UTF-8 stands as ``payload_base64``. ``fault`` is ""
where nothing befell the message. The head holds the plan, and the content type of all messages.

What it guarantees, since the line of a message is handed to the operating system before the message is handed to the
socket, and the line of an acknowledgement after it was received:

- what arrived anywhere stands in the record;
- what is recorded as acked was acknowledged by the broker;
- what is recorded as sent and not as acked may have arrived, or not: at the end of a run that was killed only.

A last line that is cut off was of messages not yet sent, or of acknowledgements that then count as unknown. (Handed
to the operating system: a killed process loses nothing; a machine that loses power may.)
"""

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from infra.fleet.payloads import CONTENT_TYPES
from infra.fleet.plan import Plan
from schemas.errors import OperatorError

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Sent:
    """One message of a record. ``acked_at`` is None where no PUBACK was recorded; ``refused`` is its reason code."""

    n: int
    sent_at: int
    topic: str
    payload: bytes
    fault: str
    acked_at: int | None
    refused: int | None
    resent: int  # how often it was sent again


class Writer:
    """Appends to a new record. Every method returns once the operating system has the lines."""

    def __init__(self, path: str | Path, plan: Plan) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError:
            raise OperatorError(f"{path} exists; a record is never written over: name another file") from None
        except OSError as error:
            raise OperatorError(f"cannot write the record {path}: {error.strerror}") from None
        head = {"record": VERSION, "content_type": CONTENT_TYPES[plan.format], "plan": asdict(plan)}
        self._write([msgspec.json.encode(head)])

    def sending(self, first: int, at: int, messages: Sequence[tuple[str, bytes, str]]) -> None:
        """(topic, payload, fault) of consecutive messages from number ``first`` on, before any of them is sent."""
        self._write([_line(first + i, at, *message) for i, message in enumerate(messages)])

    def acked(self, numbers: Sequence[int], at: int) -> None:
        self._write([msgspec.json.encode({"acked": _ranges(numbers), "at": at})])

    def refused(self, numbers: Sequence[int], reason: int, at: int) -> None:
        self._write([msgspec.json.encode({"refused": numbers, "reason": reason, "at": at})])

    def resent(self, numbers: Sequence[int], at: int) -> None:
        self._write([msgspec.json.encode({"resent": _ranges(numbers), "at": at})])

    def end(self, at: int) -> None:
        self._write([msgspec.json.encode({"ended": True, "at": at})])
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, lines: list[bytes]) -> None:
        data = memoryview(b"\n".join([*lines, b""]))
        while data:
            data = data[os.write(self._file, data) :]


def _line(n: int, at: int, topic: str, payload: bytes, fault: str) -> bytes:
    body: dict[str, Any] = {"n": n, "sent_at": at, "topic": topic}
    try:
        body["payload"] = payload.decode()
    except UnicodeDecodeError:
        body["payload_base64"] = base64.b64encode(payload).decode()
    body["fault"] = fault
    return msgspec.json.encode(body)


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] + 1 == number:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def head(path: str | Path) -> Mapping[str, Any]:
    """The first line of a record: its version, content type and plan."""
    with open(path, "rb") as file:
        line = file.readline()
    try:
        found: Mapping[str, Any] = msgspec.json.decode(line)
        known = found["record"] == VERSION
    except (msgspec.DecodeError, KeyError, TypeError):
        known = False
    if not known:
        raise OperatorError(f"{path} is not a record of the fleet (./justw load --record makes one)")
    return found


def read(path: str | Path) -> Iterator[Sent]:
    """The messages of a record in the order of sending, each with what became of it.

    Reads the file twice, so that memory is a few numbers a message and no payload. A record that is being written is
    read as far as it stands.
    """
    head(path)
    fates = _Fates()
    for body in _lines(path):
        fates.note(body)
    for body in _lines(path):
        if "n" in body:
            n = body["n"]
            coded = body.get("payload_base64")
            yield Sent(
                n=n,
                sent_at=body["sent_at"],
                topic=body["topic"],
                payload=body["payload"].encode() if coded is None else base64.b64decode(coded),
                fault=body["fault"],
                acked_at=fates.acked_at.get(n),
                refused=fates.refused.get(n),
                resent=fates.resent.get(n, 0),
            )


def ended(path: str | Path) -> bool:
    """True where the fleet came to its end: everything not acked was then given up knowingly, not cut off."""
    return any(body.get("ended", False) for body in _lines(path))


class _Fates:
    def __init__(self) -> None:
        self.acked_at: dict[int, int] = {}
        self.refused: dict[int, int] = {}
        self.resent: dict[int, int] = {}

    def note(self, body: Mapping[str, Any]) -> None:
        for low, high in body.get("acked", ()):
            self.acked_at.update(dict.fromkeys(range(low, high + 1), body["at"]))
        for low, high in body.get("resent", ()):
            self.resent.update({n: self.resent.get(n, 0) + 1 for n in range(low, high + 1)})
        for n in body.get("refused", ()):
            self.refused[n] = body["reason"]


def _lines(path: str | Path) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):  # one that is cut off is the last
                yield msgspec.json.decode(line)
