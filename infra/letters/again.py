"""Dead letters, decoded again: what today's decoder makes of them, less what the log has got of them already.

A letter of ingest's is decoded as the message it was, at the time it came. One that a dataflow refused is judged as the
record of the log that it was.
"""

from collections.abc import Iterator, Sequence
from struct import pack
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from connectors import kafka_client
from dataflows.decoding.arrivals import SCHEMA_VERSION, ArrivalsDecoder
from dataflows.decoding.log import decode_log
from dataflows.decoding.reasons import Reason
from dataflows.decoding.telemetry import TelemetryEncoder
from dataflows.decoding.times import TimeLimits
from infra.letters.letter import GROUP, Letter, first_since, messages
from schemas.arrivals import Arrivals
from schemas.log import LogBatch
from schemas.record import Record
from schemas.settings import Settings
from schemas.telemetry_pb2 import Telemetry

WORKER: Final = "redrive"
IN_PART: Final = frozenset({Reason.NOT_A_NUMBER, Reason.BAD_NAME})  # of which good metrics of the same record went on
BEHIND_MS: Final = 30_000  # how much later a record may stand in the log that came at the same time

Told = tuple[str, int, str, bytes]  # device, time, metric, value's bits


class Stays(NamedTuple):
    """Why a letter is not sent again: a reason, or words."""

    why: str


class Decoder:
    """Decodes letters again, by the settings of today."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._decoder = ArrivalsDecoder(settings.mqtt, settings.decoding, settings.kafka, settings.windows)
        self._limits = TimeLimits.of(settings.windows)
        self._encoder = TelemetryEncoder()

    def decode(self, letters: Sequence[Letter], now_ms: int) -> Iterator[tuple[Letter, Sequence[Record] | Stays]]:
        """For each letter its records, at least one, or why it stays."""
        decoded = [(letter, self._records(letter)) for letter in letters]
        came = {letter.time_ms for letter, again in decoded if not isinstance(again, Stays) and not letter.from_log}
        in_log = self._appended(came)
        for letter, again in decoded:
            if not isinstance(again, Stays):
                if not letter.from_log:
                    again = self._less(again, in_log.get(letter.time_ms, set()))
                again = self._young(again, now_ms)
            yield letter, again

    def _records(self, letter: Letter) -> Sequence[Record] | Stays:
        if letter.original_bytes is not None:
            return Stays(f"only the first {len(letter.payload)} bytes were kept")
        return self._from_log(letter) if letter.from_log else self._from_device(letter)

    def _from_device(self, letter: Letter) -> Sequence[Record] | Stays:
        content_type = letter.headers.get("content-type")
        arrivals = Arrivals(WORKER, [letter.source], [letter.payload], [content_type], [letter.time_ms], [False])
        records = self._decoder.decode(arrivals).records
        good = [one._replace(timestamp_ms=None) for one in records if one.topic == self._settings.kafka.events_topic]
        return good or Stays(dict(records[0].headers)["reason"].decode())

    def _from_log(self, letter: Letter) -> Sequence[Record] | Stays:
        events = self._settings.kafka.events_topic
        if letter.source != events:
            return Stays(
                f"is of {letter.source}, whose writer made it of {events}: mend that one, and look at its rows"
            )
        if letter.reason in IN_PART:
            return Stays(f"{letter.reason}, and what was good of it is counted")
        batch = LogBatch(events, 0, 0, 1, [0], [letter.time_ms], [letter.payload])
        decoded = decode_log(batch, self._settings.decoding)
        if decoded.refused:
            return Stays(decoded.refused[0].reason)
        message = Telemetry.FromString(letter.payload)
        if (flaw := self._limits.flaw_in(message.ts, letter.time_ms)) is not None:
            return Stays(flaw.reason)
        key = message.device_id.encode()
        headers = (("device-id", key), ("schema-version", SCHEMA_VERSION), ("ingest-node-id", WORKER.encode()))
        return [Record(events, letter.payload, key, headers)]

    def _young(self, records: Sequence[Record], now_ms: int) -> Sequence[Record] | Stays:
        """Those that the dataflow will not refuse for their age."""
        oldest_ms = now_ms - self._limits.event_age_max_ms
        young = [record for record in records if Telemetry.FromString(record.value).ts >= oldest_ms]
        return young or Stays(f"{Reason.TIMESTAMP_TOO_OLD} by now" if records else "the log has all that is good of it")

    def _less(self, records: Sequence[Record], told: set[Told]) -> Sequence[Record]:
        """What of the records is not told yet."""
        left = []
        for record in records:
            message = Telemetry.FromString(record.value)
            metrics = {
                name: value
                for name, value in message.metrics.items()
                if (message.device_id, message.ts, name, pack("<d", value)) not in told
            }
            if len(metrics) == len(message.metrics):
                left.append(record)
            elif metrics:
                value = self._encoder.encode(message.device_id.encode(), message.ts, metrics, message.raw)
                left.append(record._replace(value=value))
        return left

    def _appended(self, came: set[int]) -> dict[int, set[Told]]:
        """Readings in the log of messages that came at those times: good parts of what was refused in part."""
        found: dict[int, set[Told]] = {time_ms: set() for time_ms in came}
        kafka = self._settings.kafka
        for first, last in _spans(sorted(came)):
            begins, ends = self._range(first, last + BEHIND_MS)
            for message in messages(kafka, kafka.events_topic, begins, until=ends):
                if (readings := found.get(message.timestamp()[1])) is not None:
                    try:
                        one = Telemetry.FromString(message.value() or b"")
                    except DecodeError:  # another producer's; nothing of the letter went on in it
                        continue
                    readings |= {(one.device_id, one.ts, name, pack("<d", v)) for name, v in one.metrics.items()}
        return found

    def _range(self, first_ms: int, end_ms: int) -> tuple[dict[int, int], dict[int, int]]:
        """Offsets of the log between two times, by partition."""
        topic = self._settings.kafka.events_topic
        consumer = kafka_client.consumer(self._settings.kafka, GROUP)
        begins, ends = {}, {}
        try:
            for partition in range(self._settings.kafka.partitions):
                _, end = kafka_client.bounds(consumer, topic, partition)
                begins[partition] = first_since(consumer, topic, partition, first_ms, end)
                ends[partition] = first_since(consumer, topic, partition, end_ms, end)
        finally:
            consumer.close()
        return begins, ends


def _spans(times: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Times joined where they are near: each span of the log is read once."""
    first = last = None
    for time_ms in times:
        if first is not None and last is not None and time_ms > last + BEHIND_MS:
            yield first, last
            first = None
        first, last = time_ms if first is None else first, time_ms
    if first is not None and last is not None:
        yield first, last
