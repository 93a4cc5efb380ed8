"""When a value that does not move is news, and when it never is."""

import numpy as np

from dataflows.anomalies.protocol import Rollups, blank
from dataflows.anomalies.stuck import Stuck
from tests.dataflows.anomalies.feeding import Series, feed, minutely

DAY = 1440


def _flagged(value: np.ndarray, detector: Stuck | None = None) -> list[int]:
    detector = detector or Stuck()
    return np.flatnonzero(feed(detector, [minutely(value)])[0].score >= detector.flag_at).tolist()


def _noise(rows: int) -> np.ndarray:
    return np.random.default_rng(5).normal(20, 1, rows)


def test_a_thermometer_is_stuck_after_a_quarter_of_an_hour_and_until_it_moves() -> None:
    """Three days of noise, six hours of one value, noise again."""
    value = _noise(4 * DAY)
    value[3 * DAY : 3 * DAY + 360] = value[3 * DAY]
    assert list(range(3 * DAY + 15, 3 * DAY + 360)) == _flagged(value)


def test_a_sensor_that_fell_to_its_stop_is_stuck_too() -> None:
    """The value it stands at need not be one it had before."""
    value = _noise(3 * DAY)
    value[-60:] = -273.15
    assert _flagged(value)[0] == 3 * DAY - 60 + 15


def test_one_reading_that_differs_within_a_minute_is_variation() -> None:
    """A mean that repeats itself is not enough: least and greatest of a rollup must be one value."""
    detector, one = Stuck(learn_rollups=100), np.ones(1)
    state, scores = blank(detector, 1), []
    for row in range(300):
        apart = 1.0 if row < 150 or row % 10 == 0 else 0.0
        rollups = Rollups(np.arange(1), np.full(1, row * 60_000), one, one, one - apart, one + apart, np.full(1, 2), 0)
        state, said = detector.step(state, rollups)
        scores.append(float(said.score[0]))
    assert max(scores) < 0.5


def test_what_stands_still_by_nature_is_never_stuck() -> None:
    """Three weeks of metrics that are constant, coarse, or switches: nothing is said. But a switch that changed every
    two hours or so for two weeks, and then not for days, is."""
    rng, rows = np.random.default_rng(7), 21 * DAY
    minute = np.arange(rows)
    switch = (np.cumsum(rng.random(rows) < 1 / 120) % 2).astype(float)
    stopped = switch.copy()
    stopped[14 * DAY :] = stopped[14 * DAY]
    values = {
        "constant": np.full(rows, 4.0),
        "setpoint": np.repeat(rng.integers(18, 24, 21 * 2), DAY // 2).astype(float),
        "switch": switch,
        "counter": np.cumsum(rng.random(rows) < 0.1).astype(float),
        "still nights": np.where(minute % DAY < 600, 0.0, rng.normal(5, 1, rows)),
        "rare integer": np.round(rng.normal(0, 0.2, rows)),
        "two values in turn": np.where(minute % 2 == 0, 1.0, 2.0),
        "stopped": stopped,
    }
    many = feed(Stuck(), [minutely(value) for value in values.values()])
    flagged = {name: np.flatnonzero(said.score >= 0.5).tolist() for name, said in zip(values, many, strict=True)}
    assert 14 * DAY + 1200 < flagged.pop("stopped")[0] < 18 * DAY
    assert not any(flagged.values()), {name: rows[:3] for name, rows in flagged.items() if rows}


def test_nothing_is_said_before_two_days_are_known() -> None:
    """A sensor that was never seen otherwise may be still at night."""
    value = _noise(2 * DAY)
    value[300:] = value[300]
    assert _flagged(value) == []


def test_settings_make_it_quick() -> None:
    """With ten rollups to learn from and three to stand still: as soon as asked for, where a
    chance of one in ten thousand is rare enough, and later where it is not."""
    value = _noise(70)
    value[40:] = value[40]
    assert _flagged(value, Stuck(after_rollups=3, learn_rollups=10, once_in=1e4))[0] == 40 + 3
    assert _flagged(value, Stuck(after_rollups=3, learn_rollups=10, once_in=1e9))[0] == 40 + 6


def test_missing_minutes_are_not_standing_still() -> None:
    """The same value before and after a day without rollups is one repeat."""
    value, minute = _noise(2 * DAY), np.arange(2 * DAY)
    value[-1] = value[-2]
    minute[-1] += DAY
    assert feed(Stuck(), [Series(minute, value)])[0].score[-1] < 0.5


def test_what_stands_still_for_good_is_made_so_in_the_end() -> None:
    """An episode that nobody ends does end: after the time set no more is said, and a move starts anew."""
    value = _noise(12 * DAY)
    value[3 * DAY : 9 * DAY] = value[3 * DAY]
    value[11 * DAY :] = value[11 * DAY]
    flagged = _flagged(value, Stuck(forget_rollups=5 * DAY))
    assert list(range(3 * DAY + 15, 8 * DAY + 1)) == [row for row in flagged if row < 11 * DAY]
    assert flagged[-1] == 12 * DAY - 1


def test_a_run_that_happened_once_teaches_nothing() -> None:
    """A sensor stuck for a day is found as soon the next time."""
    value = _noise(6 * DAY)
    value[3 * DAY : 4 * DAY] = 1.0
    value[5 * DAY :] = 2.0
    flagged = _flagged(value)
    assert next(row for row in flagged if row >= 5 * DAY) - 5 * DAY <= 50


def test_the_minute_in_which_it_got_stuck_is_reckoned_with() -> None:
    """Readings vary, then a value of that minute stays: the next minute stands still already. A value that no reading
    of the minute before had reached is a move."""
    detector = Stuck(after_rollups=3, learn_rollups=30, once_in=10.0)
    for value, minutes in ((20.5, 3), (99.0, 4)):
        state, scores = blank(detector, 1), []
        for row in range(60):
            low, high = (20.0, 21.0) if row < 50 else (value, value)
            parts = [np.full(1, each) for each in ((low + high) / 2, 0.0, low, high)]
            rollups = Rollups(np.arange(1), np.full(1, row * 60_000), *parts, np.full(1, 4), (row + 1) * 60_000)
            state, said = detector.step(state, rollups)
            scores.append(float(said.score[0]))
        assert next(row for row, score in enumerate(scores) if score >= 0.5) == 50 + minutes - 1
