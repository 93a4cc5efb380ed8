"""Records of one layout, read as a matrix: what is read so is what parsers read, and what is not is pointed out."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflows.decoding import alike
from dataflows.decoding.alike import ALIKE_MIN, BLOCK, Layout, read_alike
from dataflows.decoding.columns import parse
from dataflows.decoding.telemetry import TelemetryEncoder
from schemas.packed import Packed
from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.decoding.one import NOW
from tests.dataflows.decoding.payloads import entry
from tests.dataflows.decoding.test_laws import outcomes

NAMES = ("temperature", "humidity", "p", "t")
VALUES = st.floats() | st.sampled_from((0.0, -0.0, float("nan"), float("inf"), 1.5, 21.5, 5e-324))
TIMES = st.integers(NOW - 10**7, NOW + 10**7) | st.sampled_from(
    (0, 1, 127, 128, -1, 2**62, 2**63 - 1, 253_402_300_800_000)
)
IDS = st.sampled_from(
    ("a", "b", "boiler-7", "boiler-77", "twelve-bytes", "thirteen-byte", "a\0", "é", "\x7f", "n" * 127, "n" * 128, "")
)


def written(device: str, ts: int, values: Sequence[float], names: Sequence[str] = NAMES) -> bytes:
    return TelemetryEncoder().encode(device.encode(), ts, dict(zip(names, values, strict=False)))


@st.composite
def fleets(draw: st.DrawFn) -> list[bytes]:
    """Records of one layout, or of some that differ in the length of the id; then some bytes of some are changed."""
    width = draw(st.integers(0, len(NAMES)))
    ids = st.sampled_from(draw(st.lists(IDS, min_size=1, max_size=3)))
    times = draw(st.sampled_from((TIMES, st.integers(NOW - 10**7, NOW))))
    one = st.builds(written, ids, times, st.lists(VALUES, min_size=width, max_size=width))
    records = draw(st.lists(one, min_size=1, max_size=24))
    for place, at, byte in draw(
        st.lists(st.tuples(st.integers(0, 23), st.integers(0, 80), st.integers(0, 255)), max_size=3)
    ):
        record = bytearray(records[place % len(records)])
        if record:
            record[at % len(record)] = byte
        records[place % len(records)] = bytes(record)
    return records


@given(fleets())
@example([written("n" * 127, NOW, (1.0,))] * 5)
@example([written("thirteen-byte", NOW, (1.0,))] * 9 + [written("a", NOW, (1.0,))] * 3)  # near the end
@example([written("a", NOW, (1.0,))] * 9 + [b""])
@example([written("a", NOW, (1.0,))] * 9 + [b"a"])
@example([b""] * 2 + [written("boiler-7", NOW, (1.0,))] * 9)
def test_what_is_not_odd_is_what_ptars_reads(records: list[bytes]) -> None:
    """Id, time, names and values of each row, to the bit."""
    found = read_alike(Packed.of(records))
    if found is None:
        return
    columns, odd = found
    for row in np.flatnonzero(~odd).tolist():
        expected = parse([records[row]])
        metrics = slice(int(columns.starts[row]), int(columns.starts[row + 1]))
        assert expected.device_id[0].as_py() == columns.device_id[row].as_py()
        assert expected.ts[0] == columns.ts[row]
        assert expected.metric.to_pylist() == columns.metric[metrics].to_pylist()
        assert expected.value.tobytes() == columns.value[metrics].tobytes()


@given(fleets(), st.booleans())
def test_what_a_record_becomes_does_not_depend_on_those_it_is_like(records: list[bytes], tick: bool) -> None:
    """Message, tick or refusal: the same together, where they are read as a matrix, and alone."""
    together = [(record, tick and not row) for row, record in enumerate(records)]
    assert outcomes([together]) == outcomes([[each] for each in together])


@pytest.mark.parametrize("row", [0, 3])
def test_a_change_of_any_byte_is_seen(row: int) -> None:
    """Each byte of one record among many, changed in its lowest and its highest bit: read right, or pointed out."""
    good = [written(f"boiler-{i}", NOW + i, (1.0, 2.0, 0.0)) for i in range(ALIKE_MIN + 2)]
    for at in range(len(good[row])):
        for bit in (0x01, 0x80):
            broken = bytearray(good[row])
            broken[at] ^= bit
            batch = [(bytes(broken) if i == row else record, False) for i, record in enumerate(good)]
            assert outcomes([batch]) == outcomes([[each] for each in batch]), (at, bit)


def test_records_of_ingest_and_of_google_are_alike() -> None:
    """Whatever the lengths of the ids, and with a tick among them: the quick way is taken."""
    ours = [written(f"boiler-{7**i}", NOW, (1.0, 2.0)) for i in range(9) for _ in range(ALIKE_MIN)]
    google = [Telemetry(device_id=f"d-{i % 3}", ts=NOW, metrics={"a": i}).SerializeToString() for i in range(40)]
    tick = written("", NOW, ())
    for records in (ours, google, [*ours[:20], tick, *ours[20:]]):
        found = read_alike(Packed.of(records))
        assert found is not None
        assert [record == tick for record in records] == found[1].tolist()


def test_blocks_have_no_seam() -> None:
    """More records than are read at a time, of one size and of two."""
    for ids in (10, 11):
        records = [written(f"d-{i % ids}", NOW + i, (float(i), 0.0)) for i in range(BLOCK + 10)]
        found = read_alike(Packed.of(records))
        assert found is not None
        expected = parse(records)
        assert not found[1].any()
        assert expected.device_id.to_pylist() == found[0].device_id.to_pylist()
        assert expected.metric.to_pylist() == found[0].metric.to_pylist()
        assert (expected.ts == found[0].ts).all()
        assert (expected.value == found[0].value).all()
        assert (expected.starts == found[0].starts).all()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x0a\x05ab",
        b"\x0a\x00\x10\x01" + entry(b"a", b"\x11" + bytes(8)),
        written("d", NOW, ()),
        written("d", -1, (1.0,)),
        written("d", NOW, (1.0,))[:-1],
        written("d", NOW, (1.0,)) + b"\x22\x00",
        written("d", NOW, (1.0, 2.0), ("a", "a\0")),
        written("d", NOW, (1.0,)) + entry(b"temperature", b"\x11" + bytes(8)),
        written("d", NOW, (1.0,), ("n" * 117,)),
        b"\x0a\x01d" + entry(b"a", b"\x11" + bytes(8)),
        b"\x0a\x01d\x10\x01" + entry(b"a", b"\x15" + struct.pack("<f", 1.0)),
        b"\x0a\x01d\x10\x01" + entry(b"\xff", b"\x11" + bytes(8)),
        b"\x10\x01\x0a\x01d" + entry(b"a", b"\x11" + bytes(8)),
    ],
)
def test_only_a_plain_record_is_a_model(record: bytes) -> None:
    """Anything else is parsed: nothing, truncated, unlawful or repeated names, other fields, another order."""
    assert Layout.of(record) is None
    assert read_alike(Packed.of([record] * 10)) is None


def test_where_many_are_odd_all_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kinds of devices in equal parts: one of them is parsed anyway, so both are."""
    kinds = [written("d", NOW, (1.0, 2.0)), written("d", NOW, (1.0, 2.0), ("humidity", "temperature"))]
    assert read_alike(Packed.of(kinds * 50)) is None
    monkeypatch.setattr(alike, "ODD_SHARE", 2)
    assert read_alike(Packed.of(kinds * 50)) is not None
