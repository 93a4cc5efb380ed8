"""What the statistical detector finds, follows, and says."""

from functools import cache

import numpy as np
import pytest

from dataflows.anomalies import novelty
from dataflows.anomalies.novelty import Novelty
from dataflows.anomalies.protocol import bytes_per_series
from tests.dataflows.anomalies.feeding import Said, Series, feed, minutely

DAY = 1440
FAULTS = ("none", "spike", "step", "dropped to nothing", "wider spread", "steep drift")
AT = 3 * DAY + 200  # the fault's minute: three days have been seen


def _healthy(rows: int, seed: int = 4) -> np.ndarray:
    """A metric with a day in it, and noise."""
    rng = np.random.default_rng(seed)
    return 20 + 4 * np.sin(2 * np.pi * np.arange(rows) / DAY) + rng.normal(0, 0.4, rows)


def _faulty(fault: str) -> np.ndarray:
    value, rng = _healthy(4 * DAY), np.random.default_rng(9)
    after = np.arange(len(value)) - AT
    match fault:
        case "spike":
            value[AT] += 12
        case "step":
            value[AT:] += 9
        case "dropped to nothing":
            value[AT : AT + 200] = 0
        case "wider spread":
            value[AT:] += rng.normal(0, 5, len(value) - AT)
        case "steep drift":
            value += np.maximum(after, 0) * 0.05
        case _:
            assert fault == "none"
    return value


@cache
def _judged() -> dict[str, Said]:
    """What is said of the healthy series and of each fault, side by side."""
    return dict(zip(FAULTS, feed(Novelty(), [minutely(_faulty(fault)) for fault in FAULTS]), strict=True))


def _flagged(said: Said) -> np.ndarray:
    return np.flatnonzero(said.score >= Novelty().flag_at)


@pytest.mark.parametrize("fault", FAULTS[1:])
def test_a_fault_is_flagged_soon_and_nothing_before_it(fault: str) -> None:
    """Each kind of fault is found within four hours of its start, and the healthy days before are calm."""
    flagged = _flagged(_judged()[fault])
    assert len(flagged) > 0
    assert AT <= flagged[0] < AT + 240


def test_a_lasting_change_is_told_and_then_followed() -> None:
    """After a step the new level is flagged at once, expected within a day, and flagged no more."""
    value = np.random.default_rng(2).normal(10, 1, 5000)
    value[2000:] += 30
    (said,) = feed(Novelty(), [minutely(value)])
    flagged = _flagged(said)
    assert flagged[0] == 2000
    assert flagged[-1] < 2000 + DAY
    assert abs(said.expected[-1] - 40) < 2


def test_one_wild_row_moves_what_is_expected_but_little() -> None:
    """Learning is bounded: a row a million spreads away moves the expected value by less than a spread."""
    value = np.random.default_rng(1).normal(0, 1, 1200)
    (calm,) = feed(Novelty(), [minutely(value)])
    value[1000] += 1e6
    (wild,) = feed(Novelty(), [minutely(value)])
    assert abs(wild.expected[1001] - calm.expected[1001]) < 1


def test_the_band_holds_nearly_all_healthy_rows_and_not_the_fault() -> None:
    """After warm-up, fewer than one healthy row in a thousand lies outside the band; a spike does."""
    value, said = _faulty("spike"), _judged()["spike"]
    outside = (value < said.lower) | (value > said.upper)
    assert outside[AT]
    assert outside[novelty.WARM_ROWS : AT].mean() < 0.001


def test_the_season_is_expected_after_it_was_seen() -> None:
    """On the fourth day what is expected follows the day: it explains most of the variance of a noisy sine."""
    value, said = _faulty("none"), _judged()["none"]
    last = slice(3 * DAY, None)
    # Hours of the week were never seen before on the fourth day: the level and what came of this hour explain it.
    assert np.var(value[last] - said.expected[last]) < 0.5 * np.var(value[last])


def test_nothing_is_flagged_before_warm_up_has_begun() -> None:
    """A late start is no anomaly: the first rows of a series, whatever they are, are not flagged."""
    rng = np.random.default_rng(6)
    starts = [minutely(rng.standard_t(2, 100)) for _ in range(20)]
    late = [Series(each.minute + 977 * place, each.value) for place, each in enumerate(starts)]
    assert not any(len(_flagged(said)) for said in feed(Novelty(), late))


def test_chunks_are_invisible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series worked through in chunks score as all at once, to the bit."""
    many = [minutely(_healthy(600, seed)) for seed in range(7)]
    whole = feed(Novelty(), many)
    monkeypatch.setattr(novelty, "_CHUNK_SERIES", 3)
    for expected, actual in zip(whole, feed(Novelty(), many), strict=True):
        np.testing.assert_array_equal(expected.score, actual.score)
        np.testing.assert_array_equal(expected.expected, actual.expected)


def test_state_is_under_two_kilobytes_without_the_season() -> None:
    """The stated amounts: 0.8 KB without the season, 2.7 KB with it."""
    detector = Novelty()
    season = sum(
        field.bytes_per_series for name, field in detector.fields.items() if name.startswith(("week_", "day_"))
    )
    assert bytes_per_series(detector) - season < 1000
    assert bytes_per_series(detector) < 2800
