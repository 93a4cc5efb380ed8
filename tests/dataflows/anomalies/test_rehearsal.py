"""A rule tried on a history says what the engine says of it, and sweeps what does not change the scores."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from dataflows.anomalies.judge import Judge
from dataflows.anomalies.protocol import Floats
from dataflows.anomalies.rehearsal import rehearse
from dataflows.anomalies.silence import Silence
from dataflows.anomalies.threshold import Threshold
from dataflows.anomalies.watch import MINUTE_MS, Watch
from schemas.aggregates import ROLLUPS, partial
from schemas.flags import Episode
from tests.dataflows.anomalies.feeding import START_MS

HOT = Watch("hot", Threshold("above", 10.0, clear=5.0), close_after_mins=3, cool_down_mins=10)
GONE = Watch("gone", Silence(after_mins=4, learn_rollups=5), subject="device", close_after_mins=2)


def _history(values: dict[tuple[str, str], Floats]) -> pl.DataFrame:
    """A rollup a minute for each series; none where the value is NaN."""
    rows = [
        {"bucket": START_MS + minute * MINUTE_MS, "device_id": device, "metric": metric, **partial(0, float(value))}
        for (device, metric), each in values.items()
        for minute, value in enumerate(each)
        if not np.isnan(value)
    ]
    return pl.DataFrame(rows, schema=ROLLUPS)


@pytest.fixture(scope="module")
def history() -> pl.DataFrame:
    """Two devices with a metric of noise around the limit; one of them is silent for a while."""
    rng = np.random.default_rng(2)
    one, other = rng.normal(7, 3, 300), np.cumsum(rng.normal(0, 1, 300))
    other[120:150] = np.nan
    return _history({("a", "m"): one, ("b", "m"): other, ("a", "n"): one - 20})


@pytest.mark.parametrize("watch", [HOT, GONE], ids=["series", "device"])
def test_it_says_what_the_engine_says(watch: Watch, history: pl.DataFrame) -> None:
    """The same episodes as the engine's, opened and closed in the same windows, at the same height."""
    judge = Judge([watch], MINUTE_MS)
    told: dict[str, Episode] = {}
    rows = history.with_columns(pl.lit(0, pl.Int64).alias("revision"))
    for minute in range(300):
        start = START_MS + minute * MINUTE_MS
        for one in judge.close(rows.filter(pl.col("bucket") == start), start + MINUTE_MS):
            if isinstance(one, Episode):
                told[one.episode_id] = one
    expected = {(e.flag.device_id, e.flag.metric, e.flag.bucket, e.closed) for e in told.values()}
    assert expected
    assert any(e.closed for e in told.values())
    said = rehearse(watch, history).episodes()
    assert expected == set(said.select("device_id", "metric", "opened", "closed").iter_rows())


def test_levels_and_times_are_swept_without_scoring_again(history: pl.DataFrame) -> None:
    """Episodes of other settings are those of a rehearsal with them."""
    once = rehearse(HOT, history)
    for changed in ({"for_mins": 3}, {"close_after_mins": 30}, {"cool_down_mins": 0}, {"flag_at": 0.7}):
        afresh = rehearse(replace(HOT, **changed), history).episodes()
        assert afresh.equals(once.episodes(**changed))
    assert len(once.episodes(cool_down_mins=0)) > len(once.episodes())


def test_the_frame_has_every_row_that_was_judged(history: pl.DataFrame) -> None:
    """Value, score and band of each rollup; of a silent device a score without a value."""
    hot = rehearse(HOT, history).frame()
    joined = hot.join(history, on=["bucket", "device_id", "metric"])
    assert len(history) == len(hot) == len(joined)
    assert joined["value"].equals(joined["mean"])
    assert hot["upper"].unique().to_list() == [10.0]
    gone = rehearse(GONE, history).frame().filter(pl.col("value").is_nan())
    assert {("b", "")} == set(gone.select("device_id", "metric").iter_rows())


def test_nothing_is_said_of_nothing() -> None:
    """An empty history, or one that the patterns leave out, has no episodes."""
    empty = rehearse(HOT, pl.DataFrame(schema=ROLLUPS))
    assert len(empty.frame()) == len(empty.episodes()) == 0
    other = rehearse(replace(HOT, metrics=["z"]), _history({("a", "m"): np.full(5, 99.0)}))
    assert len(other.frame()) == len(other.episodes()) == 0
