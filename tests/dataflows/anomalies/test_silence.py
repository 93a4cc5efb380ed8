"""When a device that says nothing is missed, and when it is not."""

import numpy as np

from dataflows.anomalies.silence import Silence
from tests.dataflows.anomalies.feeding import Series, watched

DAY = 1440


def _reports(minutes: np.ndarray) -> Series:
    return Series(minutes, np.full(len(minutes), 60.0))


def _missed(devices: list[np.ndarray], minutes: int, detector: Silence | None = None) -> list[list[int]]:
    """By device, the minutes in which it is missed."""
    detector = detector or Silence()
    said = watched(detector, [_reports(each) for each in devices], minutes)
    return [[minute for minute, score in each if score >= detector.flag_at] for each in said]


def test_a_device_that_stops_is_missed_until_it_returns() -> None:
    """It reported each minute; after ten minutes of silence it is missed, and the minute it is back it is not."""
    device = np.r_[np.arange(200), np.arange(500, 520)]
    other = np.arange(520)
    assert [list(range(209, 500)), []] == _missed([device, other], 520)


def test_each_device_is_judged_by_its_own_cadence() -> None:
    """One a minute, one an hour, one by chance: each is missed after its own time and not before."""
    rng = np.random.default_rng(3)
    chance = np.cumsum(np.maximum(rng.exponential(12, 900).astype(int), 1))
    devices = [np.arange(8000), np.arange(0, 8000, 60), chance[chance < 8000]]
    minute, hour, by_chance = _missed(devices, 10_000, Silence(learn_rollups=20))
    assert minute[0] == 8000 - 1 + 10
    assert 7980 + 120 < hour[0] <= 7980 + 200
    assert 7990 + 100 < by_chance[0] < 8000 + 400


def test_what_recurs_is_usual_from_its_third_time() -> None:
    """A device that is off every night is missed in the first two, and then no more."""
    minute = np.arange(8 * DAY)
    (missed,) = _missed([minute[minute % DAY >= 480]], len(minute))
    nights = sorted({each // DAY for each in missed})
    assert nights == [1, 2]


def test_one_outage_teaches_nearly_nothing() -> None:
    """After five hours of silence of all, a device that stops is missed within a few minutes more than before."""
    device = np.r_[np.arange(2000), np.arange(2300, 4000)]
    (missed,) = _missed([device], 4100)
    assert missed[0] == 2009
    assert 4009 <= next(each for each in missed if each > 2300) <= 4030


def test_a_device_that_never_was_regular_is_not_missed_yet() -> None:
    """Fewer reports than it takes to know a device: nothing is said."""
    assert _missed([np.arange(60)], 500) == [[]]
    assert _missed([np.arange(61)], 500) != [[]]


def test_a_device_gone_for_good_is_missed_no_more() -> None:
    """After the time set the silence is its normal state."""
    (missed,) = _missed([np.arange(100)], 4000, Silence(forget_mins=2000))
    assert missed == list(range(109, 2100))


def test_a_device_that_slows_down_is_missed_twice() -> None:
    """From once a minute to once an hour: that is how it reports now."""
    device = np.r_[np.arange(1000), np.arange(1060, 5000, 60)]
    (missed,) = _missed([device], 5000)
    assert {each // 60 for each in missed} == {1000 // 60 + gap for gap in (0, 1, 2)}
