"""`./justw bench store` fills what it says, asks what people ask, and writes down what it saw."""

import polars as pl
import psycopg
import pytest

from infra.bench.store import markdown, measure
from infra.bench.store_fill import DAY_MINUTES, METRICS, MINUTE_MS, Fill
from infra.queries import read_queries

END_MS = 1_763_700_000_000 // MINUTE_MS * MINUTE_MS


def test_the_newest_day_is_filled_first_and_no_row_twice() -> None:
    """Then the day before it, whole; offsets never stand twice."""
    fill = Fill(3, END_MS, 10_000)
    made = []
    while fill.days < 2:
        made.append(fill.next())
    rows = pl.concat([one.rollups for one in made])
    assert rows.select("device_id", "metric", "bucket").is_unique().all()
    assert len(rows) == 2 * DAY_MINUTES * 3 * len(METRICS)
    first_day = rows.head(len(rows) // 2)["bucket"]
    assert (first_day.min(), first_day.max()) == (END_MS - DAY_MINUTES * MINUTE_MS, END_MS - MINUTE_MS)
    assert rows["bucket"].min() == END_MS - 2 * DAY_MINUTES * MINUTE_MS
    late = pl.concat([one.late for one in made])
    assert len(late) > 0
    assert late["offset"].is_unique().all()
    assert all(one.counts.unexplained == 0 == one.counts.offsets - one.counts.messages for one in made)


@pytest.mark.embedded
def test_what_was_filled_is_there_and_every_question_was_asked(database_url: str) -> None:
    """A short run: rows of the table are those counted, the ledger balances, the table shows each question."""
    steps, compressed, edition = measure(database_url, 1.5, devices=3)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from rollups_1m").fetchone() == (steps[-1].rows,)
        balanced = "select readings = counted + late + late_duplicates + open and late > 0 from ledger"
        assert connection.execute(balanced).fetchall() == [(True,)]
    assert all(step.query_ms.keys() == {query.name for query in read_queries()} for step in steps)
    text = markdown(steps, compressed, edition, 1.5 / 60, 3)
    assert all(f"| {query.name} |" in text for query in read_queries())
    assert compressed is not None or "no columnstore" in text
