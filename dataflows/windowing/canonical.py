"""Readings of a window in canonical order, a stretch at a time, each series whole in one stretch.

Rule: series, event time and place in the log go into one integer, and integers are sorted: several times as fast as
sorting indices by two keys. They fit for a million series, 60 s and 2^27 readings; where they do not, indices are
sorted.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dataflows.windowing.names import Codes, Ranks

Unsigned = npt.NDArray[np.uint64]
Small = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]

STRETCH: Final = 1 << 15  # readings; a few arrays of them fit into a second-level cache
MESSAGES_AT_ONCE: Final = 1 << 13
KEY_BITS: Final = 63


class Part(NamedTuple):
    """Rows of a window in the order of the log, by message (device, time, size) and by reading (metric)."""

    device: Codes
    device_ranks: Ranks  # by code
    time: Small  # ms since the window's start
    size: Small  # readings in the message
    metric: Codes
    metric_ranks: Ranks


class Stretch(NamedTuple):
    """Consecutive readings in canonical order."""

    series: Unsigned  # rank of the device × number of metrics + rank of the metric
    time: Ints  # ms since the window's start
    place: Ints  # place in the order of the log, counted over the window


def in_order(parts: Sequence[Part], devices: int, metrics: int, key_bits: int = KEY_BITS) -> Iterator[Stretch]:
    """All readings of ``parts``, which follow one another in the log, in order of series, time and place."""
    count = sum(len(part.metric) for part in parts)
    time_bits = max(int(np.max(part.time)) for part in parts).bit_length()
    index_bits = count.bit_length()
    if (devices * metrics - 1).bit_length() + time_bits + index_bits > key_bits:
        return _by_index(parts, metrics)
    return _by_key(_keys(parts, metrics, count, time_bits, index_bits), time_bits, index_bits)


def _keys(parts: Sequence[Part], metrics: int, count: int, time_bits: int, index_bits: int) -> Unsigned:
    """Series, time and place of each reading, from the highest bit down."""
    keys = np.empty(count, np.uint64)
    at = 0
    for part in parts:
        ends = np.concatenate([[0], np.cumsum(part.size, dtype=np.int64)])
        device_keys = part.device_ranks * np.uint64(metrics << time_bits + index_bits)
        metric_keys = part.metric_ranks << np.uint64(time_bits + index_bits)
        for low in range(0, len(part.device), MESSAGES_AT_ONCE):
            high = min(low + MESSAGES_AT_ONCE, len(part.device))
            first, last = int(ends[low]), int(ends[high])
            message = device_keys[part.device[low:high]]
            message += part.time[low:high].astype(np.uint64) << np.uint64(index_bits)
            reading = keys[at + first : at + last]
            reading[:] = np.repeat(message, part.size[low:high])
            reading += metric_keys[part.metric[first:last]]
            reading += np.arange(at + first, at + last, dtype=np.uint64)
        at += int(ends[-1])
    return keys


def _by_key(keys: Unsigned, time_bits: int, index_bits: int) -> Iterator[Stretch]:
    keys.sort()
    series_shift, time_shift = np.uint64(time_bits + index_bits), np.uint64(index_bits)
    time_mask, index_mask = np.uint64((1 << time_bits) - 1), np.uint64((1 << index_bits) - 1)
    low = 0
    while low < len(keys):
        last = keys[min(low + STRETCH, len(keys)) - 1] >> series_shift
        high = int(np.searchsorted(keys, (last + np.uint64(1)) << series_shift))
        key = keys[low:high]
        yield Stretch(
            key >> series_shift,
            (key >> time_shift & time_mask).view(np.int64),
            (key & index_mask).view(np.int64),
        )
        low = high


def _by_index(parts: Sequence[Part], metrics: int) -> Iterator[Stretch]:
    series = np.concatenate(
        [np.repeat(p.device_ranks[p.device] * np.uint64(metrics), p.size) + p.metric_ranks[p.metric] for p in parts]
    )
    time = np.concatenate([np.repeat(part.time.astype(np.int64), part.size) for part in parts])
    order = np.lexsort((time, series))  # stable: equal ones stay in the order of the log
    series = series[order]
    low = 0
    while low < len(order):
        high = int(np.searchsorted(series, series[min(low + STRETCH, len(order)) - 1], side="right"))
        yield Stretch(series[low:high], time[order[low:high]], order[low:high])
        low = high


def without_repeats(stretch: Stretch, values: npt.NDArray[np.float64]) -> tuple[Stretch, npt.NDArray[np.float64]]:
    """Leave out readings that repeat an earlier one of the same series and time, to the bits of the value.

    Cheap where no series has two readings of one time.
    """
    series, time, place = stretch
    tied = (series[1:] == series[:-1]) & (time[1:] == time[:-1])
    if not tied.any():
        return stretch, values
    among = np.flatnonzero(tied)
    among = np.union1d(among, among + 1)
    bits = values.view(np.int64)
    among = among[np.lexsort((bits[among], time[among], series[among]))]
    before, after = among[:-1], among[1:]
    again = after[(series[before] == series[after]) & (time[before] == time[after]) & (bits[before] == bits[after])]
    if not len(again):
        return stretch, values
    kept = np.ones(len(series), bool)
    kept[again] = False
    return Stretch(series[kept], time[kept], place[kept]), values[kept]
