"""Records of the log to frames: what others may have written there, ticks, and rows that are judged one by one."""

import json
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.decoding import columns
from dataflows.decoding.columns import COLUMNAR_BYTES_MAX
from dataflows.decoding.dead_letter import dead_letter_from_log
from dataflows.decoding.ticks import tick_records
from schemas.arrivals import Tick
from schemas.log import LogSlice
from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.decoding.one import NOW, Message, messages, read
from tests.dataflows.decoding.payloads import GOOGLE_ALONE, PANIC, PTARS_ALONE, entry

DOUBLE = b"\x11" + struct.pack("<d", 1.5)
FLOAT = b"\x15" + struct.pack("<f", 1.5)
ZERO = b"\x11" + bytes(8)


def telemetry(device_id: str = "d", ts: int = NOW, **fields: Any) -> bytes:
    return Telemetry(device_id=device_id, ts=ts, **fields).SerializeToString()


GOOD = telemetry(metrics={"a": 1.5, "b": 0.0})
HEAD = telemetry()  # without metrics, to append entries to

REFUSED: list[tuple[bytes, str, str]] = [
    (b"", "no_metrics", "an empty record"),
    (HEAD, "no_metrics", "no metrics"),
    (b"hello", "bad_protobuf", ""),
    (GOOD[:-1], "bad_protobuf", ""),
    (json.dumps({"metrics": {"a": 1}}).encode(), "bad_protobuf", ""),
    (b"\x0a\x02\xff\xfe" + GOOD, "bad_protobuf", "UTF-8"),
    (HEAD + entry(b"\xff", DOUBLE), "bad_protobuf", "UTF-8"),
    (GOOD + PANIC, "bad_protobuf", ""),
    (b"\x0a" + b"\xff" * 9 + b"\x01", "bad_protobuf", ""),
    (b"+" * (COLUMNAR_BYTES_MAX + 1), "bad_protobuf", ""),
    (b"+" * 900_000, "bad_protobuf", ""),
    (telemetry("", metrics={"a": 1}), "bad_name", "device id '' is empty"),
    (telemetry("a\0", metrics={"a": 1}), "bad_name", "U+0000"),
    (telemetry("a\x7f", metrics={"a": 1}), "bad_name", "U+007F"),
    (telemetry("\x80", metrics={"a": 1}), "bad_name", "U+0080"),
    (telemetry("d" * 257, metrics={"a": 1}), "bad_name", "longer than 256 bytes"),
    (telemetry("d" * 900_000, metrics={"a": 1}), "bad_name", "longer than 256 bytes"),
    (telemetry(metrics={"": 1}), "bad_name", "metric '' is empty"),
    (telemetry(metrics={"a\x9f": 1}), "bad_name", "U+009F"),
    (telemetry(metrics={"a": float("nan")}), "not_a_number", "metric 'a' is not finite"),
    (telemetry(metrics={"a": float("-inf")}), "not_a_number", "metric 'a' is not finite"),
    (telemetry(metrics={f"m{i}": 1 for i in range(1_001)}), "too_many_metrics", "1001 metrics; 1000 are taken"),
    (telemetry(ts=2**63 - 1, metrics={"a": 1}), "bad_timestamp", "outside the years 1 to 9999"),
    (telemetry(ts=-(2**63), metrics={"a": 1}), "bad_timestamp", "outside the years 1 to 9999"),
    # values of another type, which protobuf would read as 0
    (HEAD + entry(b"a", FLOAT), "bad_shape", "not a map of string to double"),
    (HEAD + entry(b"a", b"\x10\x05"), "bad_shape", "not a map of string to double"),
    (GOOD + entry(b"c", FLOAT), "bad_shape", "not a map of string to double"),
    (GOOD + entry(b"c", b"\x12\x08" + bytes(8)), "bad_shape", "not a map of string to double"),
]


@pytest.mark.parametrize(("value", "why", "words"), REFUSED, ids=range(len(REFUSED)))
def test_poison_is_refused_with_its_reason_and_its_neighbours_go_on(value: bytes, why: str, words: str) -> None:
    """Alone or between good records: the reason, the place and the bytes; the others are read."""
    for values in ([value], [GOOD, value, GOOD], [value, GOOD], [value, value]):
        log = read(values)
        wrong = [100 + i for i, each in enumerate(values) if each is value]
        assert wrong == [refused.offset for refused in log.refused]
        for refused in log.refused:
            assert (why, value, True, NOW + refused.offset - 100) == (
                refused.reason,
                refused.payload,
                refused.whole,
                refused.append_time,
            )
            assert words in refused.detail
        assert [Message("d", NOW, {"a": 1.5, "b": 0.0})] * values.count(GOOD) == messages(log)


RIGHT: list[tuple[bytes, Message]] = [
    (telemetry("🌡" * 64, metrics={"ü🌡": -0.0}), Message("🌡" * 64, NOW, {"ü🌡": -0.0})),
    (telemetry("\u00a0\u0101", metrics={"m" * 256: 1}), Message("\u00a0\u0101", NOW, {"m" * 256: 1.0})),
    (telemetry(ts=0, metrics={"a": 1}), Message("d", 0, {"a": 1.0})),  # whether that can be is for the core to judge
    (telemetry(ts=-62_135_596_800_000, metrics={"a": 1}), Message("d", -62_135_596_800_000, {"a": 1.0})),
    (telemetry(ts=253_402_300_799_999, metrics={"a": 0}), Message("d", 253_402_300_799_999, {"a": 0.0})),
    (telemetry(metrics={"a": 1}, raw=b"x" * 300), Message("d", NOW, {"a": 1.0})),
    (telemetry(metrics={"a": 0}, raw=b"x" * 300), Message("d", NOW, {"a": 0.0})),
    (telemetry(metrics={"a": 1}, raw=b"x" * 900_000), Message("d", NOW, {"a": 1.0})),
    # unknown fields, and defaults that some encoders leave out
    (GOOD + b"\x28\x05\x2b\x08\x01\x2c", Message("d", NOW, {"a": 1.5, "b": 0.0})),
    (HEAD + entry(b"a", b""), Message("d", NOW, {"a": 0.0})),
    (GOOD + GOOGLE_ALONE, Message("d", NOW, {"a": 1.5, "b": 0.0})),
    (telemetry(metrics={"a": 1}) + PTARS_ALONE, Message("d", NOW, {"a": 1.0})),
    # of a metric that stands twice the last one counts, as in every protobuf map
    (HEAD + entry(b"a", DOUBLE) + entry(b"a", ZERO), Message("d", NOW, {"a": 0.0})),
    (HEAD + entry(b"a", ZERO) + entry(b"b", ZERO) + entry(b"a", DOUBLE), Message("d", NOW, {"a": 1.5, "b": 0.0})),
    (
        telemetry(metrics={f"m{i}": i for i in range(1_000)}),
        Message("d", NOW, {f"m{i}": float(i) for i in range(1_000)}),
    ),
]


@pytest.mark.parametrize(("value", "message"), RIGHT, ids=range(len(RIGHT)))
def test_an_odd_record_becomes_the_right_row(value: bytes, message: Message) -> None:
    """Alone and beside others."""
    for values in ([value], [GOOD, value], [b"poison", value]):
        log = read(values)
        assert message == messages(log)[-1]
        assert values.count(b"poison") == len(log.refused)


def test_good_metrics_go_on_without_the_refused() -> None:
    """The message is in both, and its refusal is not of the whole."""
    log = read([telemetry(metrics={"a": 1, "b": float("inf"), "c\n": 2})])
    assert [("d", NOW, {"a": 1.0})] == messages(log)
    (refused,) = log.refused
    assert not refused.whole
    assert "metric 'b' is not finite" in refused.detail
    assert "U+000A" in refused.detail


def test_refused_by_hundreds_among_many() -> None:
    """Every third of a thousand records is poison of one kind or another; the rest is read, in order."""
    values = [GOOD if i % 3 else REFUSED[i % 9][0] for i in range(1_000)]
    log = read(values)
    assert [100 + i for i in range(1_000) if i % 3] == log.messages["offset"].to_list()
    assert [100 + i for i in range(1_000) if not i % 3] == sorted(refused.offset for refused in log.refused)


def test_limits_are_exact_where_rows_are_judged_by_columns() -> None:
    """As many metrics as allowed are taken, and one more is not; the same for the first and last time."""
    three, four = (telemetry(metrics={f"m{i}": 1 for i in range(count)}) for count in (3, 4))
    log = read([three, four, three], metrics_max=3)
    assert [("too_many_metrics", 101)] == [(refused.reason, refused.offset) for refused in log.refused]
    for edge, beyond in ((253_402_300_799_999, 1), (-62_135_596_800_000, -1)):
        log = read([telemetry(ts=edge, metrics={"a": 1}), telemetry(ts=edge + beyond, metrics={"a": 1})])
        assert [edge] == log.messages["event_time"].to_list()
        assert ["bad_timestamp"] == [refused.reason for refused in log.refused]


# About each length at which another byte is needed: of names, of map entries, of times, of bytes.
AT_EDGES = st.builds(
    lambda length, ts, raw: telemetry("d" * length, ts, metrics={"m" * length: 0, "b": 1}, raw=bytes(raw)),
    st.integers(100, 140) | st.integers(1, 256),
    st.builds(lambda bits, less: (1 << bits) - less, st.integers(0, 47), st.integers(0, 1)) | st.integers(-9, 9),
    st.integers(0, 300),
)


@given(st.lists(AT_EDGES, min_size=1))
def test_what_is_good_is_not_suspected(values: list[bytes]) -> None:
    """Suspicion costs a hundred times as much as none: Google's own encoding of a good message raises none."""
    flags = columns.suspicious(columns.parse(values), [len(value) for value in values], 1_000)
    assert not flags.any()


def test_a_metric_given_twice_is_found_among_however_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few names by counting, with many by sorting: the same rows."""
    twice = HEAD + entry(b"a", DOUBLE) + entry(b"b", ZERO) + entry(b"a", ZERO)
    values = [telemetry(metrics={f"m{i}": 1, f"m{i + 1}": 2}) if i % 7 else twice for i in range(50)]
    by_counting = messages(read(values))
    assert Message("d", NOW, {"a": 0.0, "b": 0.0}) == by_counting[7]
    monkeypatch.setattr(columns, "_PAIRS_MAX", 0)
    assert by_counting == messages(read(values))


def ticking(**changes: Any) -> LogSlice:
    """A good record, then a tick with ``changes`` to its value or headers."""
    record = next(tick_records(Tick("w-0", NOW + 5), "raw.events", 1))
    value, headers = changes.get("value", record.value), changes.get("headers", record.headers)
    return read([GOOD, value], {1: headers})


def test_a_tick_is_read_as_it_was_written() -> None:
    """One row of TICKS and no message; one record goes to every partition, without a key, at the tick's own time."""
    records = list(tick_records(Tick("w-0", NOW), "raw.events", 3))
    assert [(0, None, NOW), (1, None, NOW), (2, None, NOW)] == [(r.partition, r.key, r.timestamp_ms) for r in records]
    log = ticking()
    assert [(101, NOW + 1, "w-0", NOW + 5)] == list(log.ticks.iter_rows())
    assert ([100], []) == (log.messages["offset"].to_list(), log.refused)


@pytest.mark.parametrize(
    ("changes", "why", "words"),
    [
        ({"value": b""}, "bad_shape", "a tick has a time and no metrics"),
        ({"value": GOOD}, "bad_shape", "a tick has a time and no metrics"),
        ({"value": b"\xff"}, "bad_protobuf", ""),
        ({"value": Telemetry(ts=2**63 - 1).SerializeToString()}, "bad_timestamp", ""),
        ({"headers": (("tick", b""),)}, "bad_name", "the ingest worker of a tick, '', is empty"),
        ({"headers": (("tick", b""), ("ingest-node-id", b"\0"))}, "bad_name", "U+0000"),
        ({"headers": (("tick", b""), ("ingest-node-id", b"w" * 300))}, "bad_name", "longer than 256"),
    ],
)
def test_a_broken_tick_is_refused(changes: dict[str, Any], why: str, words: str) -> None:
    """It moves nothing; what it held is kept."""
    log = ticking(**changes)
    assert log.ticks.is_empty()
    (refused,) = log.refused
    assert (why, 101) == (refused.reason, refused.offset)
    assert words in refused.detail


def test_a_record_without_a_key_is_no_tick_unless_it_says_so() -> None:
    """Headers of another kind make a message none the less."""
    log = read([GOOD], {0: (("ingest-node-id", b"w-0"),)})
    assert (1, 0) == (log.messages.height, log.ticks.height)


def test_a_tick_whose_worker_is_no_text_is_still_one_worker() -> None:
    """A name that is not UTF-8 is read with replacement characters, always the same."""
    log = ticking(headers=(("tick", b""), ("ingest-node-id", b"w\xff")))
    assert ["w\ufffd"] == log.ticks["worker"].to_list()


def test_an_empty_batch_is_an_empty_slice() -> None:
    """A stretch of gaps holds no record."""
    log = read([])
    assert (0, 0, []) == (log.messages.height, log.ticks.height, log.refused)


def test_a_refusal_of_the_log_is_a_dead_letter_with_its_place() -> None:
    """Topic, partition and offset find it again; above the limit it is cut."""
    (refused,) = read([b"hello"]).refused
    letter = dead_letter_from_log("raw.dead_letter", refused, "raw.events", 3, 1_000)
    headers = dict(letter.headers)
    assert (b"hello", b"bad_protobuf") == (letter.value, headers["reason"])
    assert (b"raw.events", b"3", b"100") == tuple(
        headers[f"source-{name}"] for name in ("topic", "partition", "offset")
    )
    cut = dead_letter_from_log("raw.dead_letter", refused, "raw.events", 3, 4)
    assert b"5" == dict(cut.headers)["original-size"]


def test_a_deeply_nested_record_does_not_end_the_process() -> None:
    """In a thread of 1 MB of stack, half of Rust's default, up to the largest size that ptars is given and beyond."""
    code = """if True:
        import threading
        from dataflows.decoding.columns import COLUMNAR_BYTES_MAX as most
        from tests.dataflows.decoding.one import read
        threading.stack_size(1024 * 1024)
        def run():
            for size in (most, most + 1, 2 * most, 1_000_000):
                assert len(read([b"+" * size]).refused) == 1
                assert len(read([b"+" * (size // 2) + b"," * (size // 2)]).refused) == 1
            print("survived")
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ("survived\n", 0) == (ended.stdout, ended.returncode), ended.stderr
