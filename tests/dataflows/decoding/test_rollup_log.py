"""Records of aggregates.minute: what they become, and that poison harms no neighbour."""

from hypothesis import given
from hypothesis import strategies as st

from dataflows.decoding.rollup_log import decode_rollups
from schemas.log import LogBatch
from schemas.packed import Packed
from schemas.rollup_pb2 import Rollup

MINUTE = 60_000
WHOLE = {"bucket": 120_000, "length_ms": MINUTE, "device_id": "é💡", "metric": "t", "count": 3, "mean": -0.5, "m2": 2.0}
WHOLE |= {"min": -1.5, "max": 0.25, "first": 0.0, "last": -1.0, "first_ts": 120_001, "last_ts": 179_999, "revision": 2}
CLOSING = Rollup(bucket=120_000, length_ms=MINUTE).SerializeToString()
BAD = {
    "bad_protobuf": b"\xff\xff\xff",
    "bad_name": Rollup(**WHOLE | {"device_id": "a\nb"}).SerializeToString(),
    "bad_shape": Rollup(**WHOLE | {"length_ms": 5}).SerializeToString(),
    "not_a_number": Rollup(**WHOLE | {"mean": float("nan")}).SerializeToString(),
    "bad_timestamp": Rollup(**WHOLE | {"bucket": 120_001}).SerializeToString(),
    "too_large": b"+" * 40_000,
}
GOOD = Rollup(**WHOLE).SerializeToString()


def decoded(values, ends=()):
    """As Kafka's reader hands them on, in one piece."""
    headers = {at: (("closed", end),) for at, end in ends}
    values = Packed.of(values)
    offsets = range(7, 7 + len(values))
    return decode_rollups(LogBatch("t", 1, 7, 7 + len(values), offsets, [5] * len(values), values, headers), MINUTE)


def test_a_rollup_is_its_row():
    """Column by column, in the order of the log."""
    (row,) = decoded([GOOD]).rollups.to_dicts()
    assert row == {"offset": 7} | {name: value for name, value in WHOLE.items() if name != "length_ms"}


def test_a_closing_is_the_end_of_its_window():
    """By its header; the same bytes without it are no rollup."""
    found = decoded([GOOD, CLOSING, CLOSING], [(1, b"180000")])
    assert found.closed == [(8, 180_000)]
    assert [(one.offset, str(one.reason)) for one in found.refused] == [(9, "bad_name")]


def test_every_kind_of_poison_has_its_reason_and_its_bytes():
    """And the rows beside it are there."""
    values = [GOOD, *(value for bad in BAD.values() for value in (bad, GOOD))]
    found = decoded(values)
    assert [str(one.reason) for one in found.refused] == list(BAD)
    assert [one.payload for one in found.refused] == list(BAD.values())
    assert found.rollups["offset"].to_list() == [7 + at for at, value in enumerate(values) if value == GOOD]


def test_a_closing_that_says_no_time_is_refused():
    """Letters, nothing, a time that is no end of a window, one beyond all dates."""
    ends = [b"zz", b"", b"180001", b"9" * 15, b"-60000"]
    found = decoded([CLOSING] * len(ends), list(enumerate(ends)))
    assert not found.closed
    assert len(found.refused) == len(ends)


@given(values=st.lists(st.sampled_from([GOOD, *BAD.values()]) | st.binary(max_size=60), max_size=8))
def test_what_a_record_becomes_depends_on_it_alone(values):
    """Any bytes, side by side or each alone."""
    together = decoded(values)
    refused = {one.offset: (one.reason, one.payload) for one in together.refused}
    rows = {row.pop("offset"): row for row in together.rollups.to_dicts()}
    for at, value in enumerate(values):
        alone = decoded([value])
        assert [(one.reason, one.payload) for one in alone.refused] == [refused[o] for o in refused if o == 7 + at]
        assert [row | {"offset": 7 + at} for row in alone.rollups.to_dicts()] == [
            row | {"offset": offset} for offset, row in rows.items() if offset == 7 + at
        ]
    assert len(refused) + len(rows) == len(values)
