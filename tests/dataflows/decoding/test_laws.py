"""Laws of decoding, for any bytes whatever.

Never raises; every payload has an outcome and a refused one keeps its bytes; what ingest emits the log side reads back;
and what a record of the log becomes does not depend on its neighbours.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import Phase, assume, event, example, find, given, settings
from hypothesis import strategies as st

from dataflows.decoding.columns import COLUMNAR_BYTES_MAX
from dataflows.decoding.reasons import Reason
from schemas.arrivals import Arrivals
from schemas.frames import MESSAGES, TICKS
from schemas.log import LogSlice
from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.decoding import one
from tests.dataflows.decoding.one import (
    NOW,
    TOPIC,
    WORKER,
    arrive,
    decoder,
    letters,
    message_of,
    messages,
    read,
    reason,
)
from tests.dataflows.decoding.payloads import (
    BROKEN,
    CONTENT_TYPES,
    GOOD_TELEMETRY,
    GOOGLE_ALONE,
    PAYLOADS,
    PTARS_ALONE,
    RECORDS,
)

GOOD_ONE = Telemetry(device_id="d", ts=NOW, metrics={"a": 1}).SerializeToString()
TICK = (("tick", b"1"), ("ingest-node-id", b"w-0"))
REASONS = {reason.value for reason in Reason}


@given(st.lists(st.tuples(PAYLOADS | BROKEN, CONTENT_TYPES), min_size=1, max_size=20))
@example([(b"+" * 100_000, None), (b"[" * 100_000, None), (b'{"metrics":{"a":1}}', None)])
def test_every_payload_has_an_outcome_and_none_raises(arrived: Sequence[tuple[bytes, str | None]]) -> None:
    """Readings, or a dead letter with a reason of the set and the payload as it came, or both; never nothing."""
    payloads, content_types = zip(*arrived, strict=True)
    count = len(payloads)
    decoded = decoder().decode(
        Arrivals("w", [TOPIC] * count, payloads, content_types, [NOW + i for i in range(count)], [False] * count)
    )
    outcomes: Counter[int] = Counter()
    for record in decoded.records:
        assert record.timestamp_ms is not None
        row = record.timestamp_ms - NOW
        outcomes[row] += 1
        if record.topic == "raw.dead_letter":
            event(reason(record))
            assert reason(record) in REASONS
            assert payloads[row] == record.value
        else:
            assert record.key == b"boiler-7"
            assert message_of(record).metrics
    assert set(range(count)) == set(outcomes)
    assert Counter(reason(letter) for letter in letters(decoded)) == decoded.dead_letters


@given(st.lists(st.tuples(PAYLOADS | BROKEN, CONTENT_TYPES), min_size=1, max_size=12))
def test_what_a_payload_becomes_does_not_depend_on_its_neighbours(arrived: Sequence[tuple[bytes, str | None]]) -> None:
    """The same records, byte for byte, together or alone: so a redelivery can be told by its bytes."""
    payloads, content_types = zip(*arrived, strict=True)
    count = len(payloads)
    together = decoder().decode(
        Arrivals(WORKER, [TOPIC] * count, payloads, content_types, [NOW] * count, [False] * count)
    )
    alone = [record for one, content_type in arrived for record in arrive(one, content_type).records]
    assert alone == together.records


@given(st.lists(PAYLOADS | BROKEN, min_size=1, max_size=20))
def test_what_ingest_emits_the_log_side_reads_back(payloads: Sequence[bytes]) -> None:
    """The same device, time and readings, to the bit, and nothing refused."""
    records = [record for payload in payloads for record in arrive(payload).records if record.topic == "raw.events"]
    assume(records)
    log = read([record.value for record in records])
    assert not log.refused
    assert [bits(message_of(record)) for record in records] == [bits(message) for message in messages(log)]


def bits(message: one.Message) -> tuple[str, int, dict[str, str]]:
    return message.device_id, message.ts, {name: value.hex() for name, value in message.metrics.items()}


@given(st.lists(st.tuples(RECORDS, st.booleans()), max_size=20))
@example([(b"+" * (COLUMNAR_BYTES_MAX + 1), False), (b"", False), (b"", True)])
def test_every_record_has_an_outcome_and_none_raises(records: Sequence[tuple[bytes, bool]]) -> None:
    """Each offset is a message, a tick or refused as a whole, exactly once; refusals keep their bytes."""
    values = [value for value, _ in records]
    log = read(values, {i: TICK for i, (_, tick) in enumerate(records) if tick})
    whole = [refused.offset for refused in log.refused if refused.whole]
    partly = [refused.offset for refused in log.refused if not refused.whole]
    assert sorted(whole + log.messages["offset"].to_list() + log.ticks["offset"].to_list()) == list(
        range(log.start, log.end)
    )
    assert set(partly) <= set(log.messages["offset"])
    for refused in log.refused:
        event(refused.reason)
        assert refused.reason in REASONS
        assert values[refused.offset - log.start] == refused.payload
        assert refused.append_time == NOW + refused.offset - log.start


@given(st.lists(st.tuples(RECORDS, st.booleans()), max_size=12), st.lists(st.integers(0, 12), max_size=3))
@example([(GOOD_ONE + PTARS_ALONE, False), (b"poison", False), (GOOD_ONE + GOOGLE_ALONE, False)], [1])
def test_what_a_record_becomes_does_not_depend_on_its_neighbours(
    records: Sequence[tuple[bytes, bool]], cuts: list[int]
) -> None:
    """Any cutting of a log into batches gives the same outcomes: here, all at once against pieces."""
    edges = sorted({0, len(records), *(cut for cut in cuts if cut < len(records))})
    pieces = [records[a:b] for a, b in pairwise(edges)]
    assert outcomes([records]) == outcomes(pieces)
    assert outcomes([records]) == outcomes([[record] for record in records])


def outcomes(pieces: Sequence[Sequence[tuple[bytes, bool]]]) -> list[tuple[object, ...]]:
    """What every record becomes, in order, whatever batch it was in."""
    found: list[tuple[object, ...]] = []
    for piece in pieces:
        log = read([value for value, _ in piece], {i: TICK for i, (_, tick) in enumerate(piece) if tick})
        found += sorted(described(log), key=lambda row: str(row[0]))
    return [row[1:] for row in found]


def described(log: LogSlice) -> list[tuple[object, ...]]:
    rows = zip(log.messages["offset"], messages(log), strict=True)
    return [
        *((offset, "message", *bits(message)) for offset, message in rows),
        *((row[0], "tick", *row[2:]) for row in log.ticks.iter_rows()),
        *((r.offset, "refused", r.reason, r.detail, r.payload, r.whole) for r in log.refused),
    ]


@given(st.lists(GOOD_TELEMETRY, max_size=20))
def test_frames_have_their_columns_whatever_the_batch(values: Sequence[bytes]) -> None:
    """MESSAGES and TICKS, also of a batch without either; names and values side by side, offsets ascending."""
    log = read(values)
    assert MESSAGES == log.messages.schema
    assert TICKS == log.ticks.schema
    assert log.messages["offset"].is_sorted()
    assert (log.messages["metric"].list.len() == log.messages["value"].list.len()).all()
    assert (log.messages["metric"].list.n_unique() == log.messages["metric"].list.len()).all()


SEARCH = settings(max_examples=5_000, phases=[Phase.generate], derandomize=True, database=None)


def test_the_strategies_make_every_reason_occur() -> None:
    """All that a payload alone can be refused for at the default limits, on either side, is found by chance."""
    by_ingest = {"not_json", "bad_protobuf", "bad_shape", "bad_name", "not_a_number", "no_metrics", "device_mismatch"}
    by_ingest |= {"timestamp_in_future", "timestamp_too_old", "bad_timestamp"}
    by_log = {"bad_protobuf", "bad_shape", "bad_name", "not_a_number", "no_metrics", "bad_timestamp", "in part"}
    found: set[str] = set()

    def all_by_ingest(payload: bytes) -> bool:
        found.update(reason(letter) for letter in letters(arrive(payload)))
        return by_ingest <= found

    def all_by_log(value: bytes) -> bool:
        found.update(refused.reason if refused.whole else "in part" for refused in read([value]).refused)
        return by_log <= found

    find(PAYLOADS | BROKEN, all_by_ingest, settings=SEARCH)
    found.clear()
    find(RECORDS, all_by_log, settings=SEARCH)
