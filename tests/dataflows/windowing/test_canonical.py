"""Every way to the canonical order gives the same one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dataflows.windowing.canonical import Part, Stretch, in_order
from tests.dataflows.windowing.budget import examples

DEVICES, METRICS = 5, 3


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[Part], np.ndarray]:
    """Rows of one or two generations of names, of one shape or of several, with ties of time."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shaped = draw(st.booleans())
    shape = random.permutation(METRICS)[: draw(st.integers(1, METRICS))].astype(np.uint32)
    parts = []
    for _ in range(draw(st.integers(1, 2))):
        count = draw(st.integers(1, 50))
        names = [shape if shaped else random.permutation(METRICS)[: random.integers(1, 4)] for _ in range(count)]
        parts.append(
            Part(
                device=random.integers(0, DEVICES, count).astype(np.uint32),
                device_ranks=np.arange(DEVICES, dtype=np.uint64)[::-1].copy(),
                time=random.integers(0, 6, count).astype(np.uint32),
                size=np.array([len(some) for some in names], np.uint32),
                metric=np.zeros(0, np.uint32) if shaped else np.concatenate(names).astype(np.uint32),
                metric_ranks=np.array([2, 0, 1], np.uint64),
                shape=shape if shaped else None,
            )
        )
    readings = sum(int(part.size.sum()) for part in parts)
    return parts, np.arange(readings, dtype=np.float64)


def rows(stretches: list[Stretch]) -> list[tuple[int, int, float]]:
    """Series, time and value; of stretches that are by metric first, brought into the order of series (stably)."""
    found = [row for part in stretches for row in zip(*(x.tolist() for x in part[:3]), strict=True)]
    return sorted(found, key=lambda row: row[0])


def by_hand(parts: list[Part]) -> list[tuple[int, int, float]]:
    found, place = [], 0
    for part in parts:
        metrics = iter(part.metric.tolist())
        for device, time, size in zip(part.device.tolist(), part.time.tolist(), part.size.tolist(), strict=True):
            for metric in part.shape.tolist() if part.shape is not None else [next(metrics) for _ in range(size)]:
                series = int(part.device_ranks[device]) * METRICS + int(part.metric_ranks[metric])
                found.append((series, time, float(place)))
                place += 1
    return sorted(found)


@given(windows())
@examples(150)
def test_keys_indices_and_messages_sort_alike(window):
    """As one integer, by two keys where that would not fit, and by message where all are of one shape."""
    parts, values = window
    expected = by_hand(parts)
    assert rows(list(in_order(parts, values, DEVICES, METRICS))) == expected
    assert rows(list(in_order(parts, values, DEVICES, METRICS, key_bits=0))) == expected


def test_a_series_is_never_split_over_stretches():
    """However many readings one series has, and however many series there are."""
    count = 200_000
    part = Part(
        device=(np.arange(count) % 7 // 6 + np.arange(count) // 150_000 * 2).astype(np.uint32),
        device_ranks=np.arange(4, dtype=np.uint64),
        time=np.zeros(count, np.uint32),
        size=np.ones(count, np.uint32),
        metric=np.zeros(count, np.uint32),
        metric_ranks=np.zeros(1, np.uint64),
    )
    stretches = list(in_order([part], np.zeros(count), 4, 1))
    met = [set(stretch.series.tolist()) for stretch in stretches]
    assert len(met) > 1
    assert sum(map(len, met)) == len(set().union(*met))
    assert sum(len(stretch.value) for stretch in stretches) == count
