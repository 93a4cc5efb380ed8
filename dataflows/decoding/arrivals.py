"""MQTT messages to records for the log: what the ingest dataflow does between its source and its sink.

Each payload becomes at least one record: one in the events topic for each of its messages that has a good metric,
and one in the dead letter, whole and once, if anything in it was refused.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from dataflows.decoding.dead_letter import dead_letter, header_text
from dataflows.decoding.formats import Formats
from dataflows.decoding.metrics import sift
from dataflows.decoding.names import Names, flaw_in
from dataflows.decoding.passing import passing
from dataflows.decoding.protobuf_payload import decode_protobuf
from dataflows.decoding.reasons import Flaw, Reason, shown
from dataflows.decoding.said import Format, Said
from dataflows.decoding.telemetry import TelemetryEncoder
from dataflows.decoding.times import TimeLimits, event_time
from dataflows.decoding.topics import DEVICE_ID, TopicTemplate, compile_topic
from schemas.arrivals import Arrivals
from schemas.record import Headers, Record
from schemas.settings import DecodingSettings, KafkaSettings, MqttSettings, WindowSettings

SCHEMA_VERSION: Final = b"1"
KNOWN_TOPICS_MAX: Final = 65_536
KNOWN_TOPIC_CHARS_MAX: Final = 1_024  # longer ones are understood anew each time: a publisher could fill our memory
FLAWS_LISTED_MAX: Final = 10


@dataclass(slots=True)
class Decoded:
    """What ``Arrivals`` became: ``records`` in their order, and what to count.

    ``messages`` went to the events topic, ``untimed`` of them without a time of their own: sent twice, they cannot
    be told apart; ``old`` of them happened longer before their arrival than the allowed lateness. ``dead_letters``
    counts payloads that were refused, or a part of which was, by their first reason.
    """

    records: list[Record] = field(default_factory=list)
    messages: int = 0
    untimed: int = 0
    old: int = 0
    dead_letters: Counter[Reason] = field(default_factory=Counter)


class _Place(NamedTuple):
    """What a topic says about its messages. ``device_id`` is None where the payload has to say it."""

    captures: Mapping[str, str]
    device_id: str | None
    key: bytes
    headers: Headers
    flaw: Flaw | None = None


_Passing = tuple[list[str | None], list[int], list[bool]]


class ArrivalsDecoder:
    """Decodes the arrivals of any ingest worker. Keeps nothing between calls but what makes them fast.

    Raises ``OperatorError`` where the topic template or a format of the settings is not understood.
    """

    def __init__(
        self, mqtt: MqttSettings, decoding: DecodingSettings, kafka: KafkaSettings, windows: WindowSettings
    ) -> None:
        self._template: TopicTemplate = compile_topic(mqtt.topic, mqtt.device_id_template)
        self._formats = Formats(decoding.formats)
        self._limits = TimeLimits.of(windows)
        self._lateness_ms = round(windows.allowed_lateness_secs * 1000)
        self._metrics_max = decoding.metrics_max
        self._payload_bytes_max = decoding.payload_bytes_max
        self._events_topic = kafka.events_topic
        self._event_headers: frozenset[str] = kafka.event_headers
        self._dead_letter_topic = kafka.dead_letter_topic
        self._encoder = TelemetryEncoder()
        self._names = Names()
        self._places: dict[str, dict[str, _Place]] = {}  # by worker and topic

    def decode(self, arrivals: Arrivals, append_ms: int | None = None) -> Decoded:
        """The records of ``arrivals``, stamped ``append_ms`` or as they came. Never raises for what a device sent."""
        decoded = Decoded()
        worker, places = arrivals.worker, self._places.setdefault(arrivals.worker, {})
        forms = self._forms(arrivals)
        add = decoded.records.append
        made = tuple.__new__  # what ``Record(…)`` comes to, at half the cost
        events_topic, lateness_ms = self._events_topic, self._lateness_ms
        rows = zip(
            arrivals.topics,
            arrivals.payloads,
            arrivals.content_types,
            forms,
            *self._passing(arrivals, forms),
            arrivals.ingest_times,
            arrivals.ingest_times if append_ms is None else [append_ms] * len(forms),
            strict=True,
        )
        for topic, payload, content_type, form, device_id, ts, usual, ingest_time, stamp in rows:
            place = places.get(topic) or self._remember(worker, topic)
            if usual and device_id == place.device_id:
                # Nearly always where devices send protobuf: it goes on as it came.
                add(made(Record, (events_topic, payload, place.key, place.headers, None, stamp)))
                decoded.old += ts < ingest_time - lateness_ms
                continue
            flaw: Flaw | None
            if isinstance(form, Flaw):
                flaw = form
            elif place.flaw is not None:
                flaw = place.flaw
            elif device_id is not None:
                flaw = self._pass_on(decoded, place, payload, device_id, ts, ingest_time, stamp)
            else:
                flaw = self._decode_payload(decoded, place, payload, form, ingest_time, stamp)
            if flaw is not None:
                where = _origin(topic, worker, content_type)
                limit = self._payload_bytes_max
                add(dead_letter(self._dead_letter_topic, payload, flaw, where, limit, stamp))
                decoded.dead_letters[flaw.reason] += 1
        decoded.messages = len(decoded.records) - decoded.dead_letters.total()
        return decoded

    def _forms(self, arrivals: Arrivals) -> Sequence[Format | Flaw]:
        forms = self._formats.choose_all(arrivals.content_types, arrivals.payloads)
        limit = self._payload_bytes_max
        if max(map(len, arrivals.payloads)) <= limit:
            return forms
        return [
            Flaw(Reason.TOO_LARGE, f"{len(payload)} bytes; {limit} are taken") if len(payload) > limit else form
            for payload, form in zip(arrivals.payloads, forms, strict=True)
        ]

    def _passing(self, arrivals: Arrivals, forms: Sequence[Format | Flaw]) -> _Passing:
        """Of each payload that can go on: device id and time, and whether it is good as it stands but for the id."""
        rows = [row for row, form in enumerate(forms) if form is decode_protobuf]
        whole = len(rows) == len(forms)
        if not rows:
            return [None] * len(forms), [0] * len(forms), [False] * len(forms)
        found = passing(arrivals.payloads if whole else [arrivals.payloads[row] for row in rows], self._metrics_max)
        ingest_times = np.array(arrivals.ingest_times)
        age = (ingest_times if whole else ingest_times[rows]) - found.ts
        in_time = (age >= -self._limits.clock_skew_max_ms) & (age <= self._limits.event_age_max_ms)
        usual = (found.good & in_time & (found.ts != 0)).tolist()
        device_ids: list[str | None] = [*found.device_ids]
        for row in np.flatnonzero(~found.good).tolist():
            device_ids[row] = None
        if whole:
            return device_ids, found.ts.tolist(), usual
        by_row = dict(zip(rows, zip(device_ids, found.ts.tolist(), usual, strict=True), strict=True))
        spread = [by_row.get(row, (None, 0, False)) for row in range(len(forms))]
        return [one[0] for one in spread], [one[1] for one in spread], [one[2] for one in spread]

    def _pass_on(
        self,
        decoded: Decoded,
        place: _Place,
        payload: bytes,
        device_id: str,
        said_ts: int,
        ingest_time: int,
        stamp: int,
    ) -> Flaw | None:
        """Add a ``Telemetry`` to ``decoded`` as it came, completed by what only we know."""
        placed = self._placed(place, device_id or None, said_ts or None, ingest_time)
        if isinstance(placed, Flaw):
            return placed
        place, ts = placed
        key = None if device_id.encode() == place.key else place.key
        value = self._encoder.complete(payload, key, None if said_ts else ts)
        decoded.records.append(Record(self._events_topic, value, place.key, place.headers, None, stamp))
        if not said_ts:
            decoded.untimed += 1
        decoded.old += ts < ingest_time - self._lateness_ms
        return None

    def _decode_payload(
        self, decoded: Decoded, place: _Place, payload: bytes, form: Format, ingest_time: int, stamp: int
    ) -> Flaw | None:
        """Add the payload's records to ``decoded``; the flaw is for the dead letter."""
        said = form(payload)
        if isinstance(said, Flaw):
            return said
        flaws = []
        for number, one in enumerate(said, 1):
            flaw = one if isinstance(one, Flaw) else self._decode_message(decoded, place, one, ingest_time, stamp)
            if flaw is not None:
                flaws.append((number, flaw))
        return _joined(flaws, len(said)) if flaws else None

    def _decode_message(self, decoded: Decoded, place: _Place, said: Said, ingest_time: int, stamp: int) -> Flaw | None:
        """Add the record of one message to ``decoded``; None where all of it was good."""
        placed = self._placed(place, said.device_id, said.ts, ingest_time)
        if isinstance(placed, Flaw):
            return placed
        place, ts = placed
        metrics, flaw = sift(said.metrics, self._names, self._metrics_max)
        if metrics:
            value = self._encoder.encode(place.key, ts, metrics, said.raw)
            decoded.records.append(Record(self._events_topic, value, place.key, place.headers, None, stamp))
            if said.ts is None:
                decoded.untimed += 1
            decoded.old += ts < ingest_time - self._lateness_ms
        return flaw

    def _placed(self, place: _Place, device_id: Any, ts: Any, ingest_time: int) -> tuple[_Place, int] | Flaw:
        """Device and time of a message by topic, payload and arrival; a flaw where they do not agree."""
        if device_id != place.device_id or device_id is None:
            named = self._named_by_payload(place, device_id)
            if isinstance(named, Flaw):
                return named
            place = named
        if ts is None:
            return place, ingest_time
        if type(ts) is int and -self._limits.clock_skew_max_ms <= ingest_time - ts <= self._limits.event_age_max_ms:
            return place, ts  # nearly always
        time = event_time(ts)
        if isinstance(time, Flaw):
            return time
        return self._limits.flaw_in(time, ingest_time) or (place, time)

    def _named_by_payload(self, place: _Place, named: object) -> _Place | Flaw:
        """The place, with the device id that the payload gives if need be; a flaw where topic and payload disagree."""
        if named is None:
            if place.device_id is not None:
                return place
            return Flaw(Reason.BAD_NAME, "no device id, neither in the topic nor in the payload")
        if not isinstance(named, str):
            return Flaw(Reason.BAD_SHAPE, f"device_id is {shown(named)}, not a string")
        if place.device_id is None:
            device_id = self._template.device_id({**place.captures, DEVICE_ID: named})
            if words := flaw_in(named) or self._names.flaw_in(device_id):
                return Flaw(Reason.BAD_NAME, f"device id {shown(device_id)} {words}")
            key = device_id.encode()
            headers = tuple((name, key if name == "device-id" else text) for name, text in place.headers)
            return place._replace(key=key, headers=headers)
        if named in (place.device_id, place.captures.get(DEVICE_ID)):
            return place
        return Flaw(Reason.DEVICE_MISMATCH, f"the topic is of {shown(place.device_id)}, the payload of {shown(named)}")

    def _remember(self, worker: str, topic: str) -> _Place:
        place = self._place(worker, topic)
        if place.flaw is None and len(topic) <= KNOWN_TOPIC_CHARS_MAX:
            if sum(map(len, self._places.values())) >= KNOWN_TOPICS_MAX:
                self._places.clear()
            self._places.setdefault(worker, {})[topic] = place
        return place

    def _place(self, worker: str, topic: str) -> _Place:
        captures = self._template.match(topic)
        if captures is None:
            words = f"topic {shown(topic)} is none of the template {shown(self._template.filter)}"
            return _Place({}, None, b"", (), Flaw(Reason.BAD_SHAPE, words))
        for name, text in captures.items():
            if words_of_flaw := self._names.flaw_in(text):
                flaw = Flaw(Reason.BAD_NAME, f"{name} {shown(text)} in the topic {words_of_flaw}")
                return _Place(captures, None, b"", (), flaw)
        device_id = None if self._template.needs_payload else self._template.device_id(captures)
        if device_id is not None and (words_of_flaw := self._names.flaw_in(device_id)):
            return _Place(captures, None, b"", (), Flaw(Reason.BAD_NAME, f"{shown(device_id)} {words_of_flaw}"))
        key = (device_id or "").encode()
        return _Place(captures, device_id, key, self._headers(key, worker, captures))

    def _headers(self, key: bytes, worker: str, captures: Mapping[str, str]) -> Headers:
        """Those of the contract that the settings ask for, and what the topic says besides."""
        known = (("device-id", key), ("schema-version", SCHEMA_VERSION), ("ingest-node-id", worker.encode()))
        asked_for = (header for header in known if header[0] in self._event_headers)
        return (*asked_for, *((name, captures[name].encode()) for name in self._template.headers))


def _origin(topic: str, worker: str, content_type: str | None) -> Headers:
    """Headers of a dead letter: what it takes to decode it again, and who refused it."""
    where = (("source-topic", header_text(topic)), ("ingest-node-id", worker.encode()))
    return where if content_type is None else (*where, ("content-type", header_text(content_type)))


def _joined(flaws: list[tuple[int, Flaw]], messages: int) -> Flaw:
    """One flaw for a payload: the reason of the first, and in an array the place of each."""
    if messages == 1:
        return flaws[0][1]
    words = [
        f"message {number} of {messages}: {flaw.reason}: {flaw.detail}" for number, flaw in flaws[:FLAWS_LISTED_MAX]
    ]
    if len(flaws) > FLAWS_LISTED_MAX:
        words.append(f"and {len(flaws) - FLAWS_LISTED_MAX} more")
    return Flaw(flaws[0][1].reason, "; ".join(words))
