"""Rows as ``Rollup`` messages: encoded by columns, and what protobuf itself would have made of each row."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from schemas.aggregates import COLUMNS, ROLLUPS
from schemas.rollup_pb2 import Rollup
from schemas.rollup_records import encode

ROWS = ROLLUPS | {"revision": pl.Int64()}
times = st.integers(-(2**40), 2**45)
names = st.sampled_from(["boiler-7", "🌡", "x" * 256]) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
doubles = st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1.7e308]) | st.floats(allow_nan=False)
row = st.fixed_dictionaries(
    {
        name: names if kind == pl.String() else doubles if kind == pl.Float64() else times
        for name, kind in ROLLUPS.items()
    }
    | {"revision": st.integers(0, 2**31 - 1)}
)


@given(st.lists(row, max_size=5))
def test_a_message_holds_its_row_to_the_bit(rows: list[dict[str, object]]) -> None:
    """Negative zeros, infinities, far times and any text included; no row is moved, left out or mixed with another."""
    encoded = encode(pl.DataFrame(rows, schema=ROWS, orient="row"), 60_000)
    assert len(encoded) == len(rows)
    for value, expected in zip(encoded, rows, strict=True):
        found = Rollup.FromString(value)
        assert repr({name: getattr(found, name) for name in ROWS}) == repr({name: expected[name] for name in ROWS})
        assert found.length_ms == 60_000


def test_every_aggregate_has_its_field() -> None:
    """Adding an aggregate touches the list, the proto file and a migration; this is the middle one."""
    kinds = {"int64": pl.Int64(), "double": pl.Float64()}
    fields = {field.name: field for field in Rollup.DESCRIPTOR.fields}
    for column in COLUMNS:
        field = fields[column.name]
        assert kinds[{field.TYPE_INT64: "int64", field.TYPE_DOUBLE: "double"}[field.type]] == column.dtype
    assert set(fields) == {*ROWS, "length_ms"}
