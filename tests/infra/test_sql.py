"""`./justw sql`: an answer that reads well, and nothing changed by accident."""

import io

import pytest

from infra.sql import ask, shown, table
from schemas.errors import OperatorError

pytestmark = [pytest.mark.embedded, pytest.mark.contract]


def answer(conninfo: str, query: str, **options) -> list[str]:
    out = io.StringIO()
    ask(conninfo, query, out, **options)
    return out.getvalue().splitlines()


def test_an_answer_is_a_table(database_url: str) -> None:
    """Numbers to the right, text to the left, instants in UTC, null visible, long text cut."""
    query = """select 'boiler-7' as device_id, 21.5::float8 as value, null as note,
            timestamptz '2025-11-21 05:40+01' as bucket
        union all select repeat('x', 300), -3, null, null"""
    first, line, *rows, count = answer(database_url, query)
    assert first.split() == ["device_id", "value", "note", "bucket"]
    assert set(line) == {"─", " "}
    assert rows[0].split() == ["boiler-7", "21.5", "–", "2025-11-21", "04:40:00Z"]
    assert rows[1].split() == ["x" * 59 + "…", "-3", "–", "–"]
    assert rows[0].index("21.5") + 4 == rows[1].index("-3") + 2
    assert count == "(2 rows)"


def test_it_changes_nothing_unless_told_to(database_url: str) -> None:
    """Not even in a second statement after a commit; with ``write`` it does."""
    answer(database_url, "create table things (id int)", write=True)
    for query in (
        "insert into things values (1)",
        "select 1; commit; insert into things values (1)",
        "drop table things",
    ):
        with pytest.raises(OperatorError, match="add --write"):
            answer(database_url, query)
    assert answer(database_url, "select count(*) from things")[2].strip() == "0"
    assert answer(database_url, "insert into things values (1)", write=True) == ["INSERT 0 1"]


def test_several_statements_answer_in_turn(database_url: str) -> None:
    """One table each."""
    assert [
        line for line in answer(database_url, "select 1 as a; select 2 as b") if line in ("a", "b", "1", "2")
    ] == list("a1b2")


def test_rows_beyond_the_limit_are_counted(database_url: str) -> None:
    """And shown where asked for."""
    query = "select generate_series(1, 205) as n"
    assert answer(database_url, query)[-1] == "(205 rows, 105 not shown: --rows 0 shows all)"
    assert answer(database_url, query, rows_max=0)[-1] == "(205 rows)"


def test_csv_cuts_nothing(database_url: str) -> None:
    """Values as they are."""
    assert answer(database_url, "select repeat('x', 300) as a, 0.1::float8 as b", as_csv=True) == [
        "a,b",
        "x" * 300 + ",0.1",
    ]


def test_a_wrong_query_is_one_message(database_url: str) -> None:
    """What the database said, where it points to included."""
    with pytest.raises(OperatorError, match='column "nonsense" does not exist') as said:
        answer(database_url, "select nonsense")
    _, query, place = str(said.value).splitlines()
    assert query.index("nonsense") == place.index("^")


def test_a_value_is_shown_as_a_person_reads_it() -> None:
    """Doubles without their noise, line ends without breaking the table."""
    assert shown(0.1 + 0.2) == "0.3"
    assert shown("a\nb") == "a b"
    assert table(["empty"], []) == ["empty", "─────"]
