"""Names as small integers, so that strings are hashed once a message and never compared again.

Rule: names are interned by generation. A generation is replaced when the window that just closed held less than half
its names, and is freed with the last window that holds rows of it: nothing grows with the names ever seen.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from dataflows.windowing.columns import Columns

Codes = npt.NDArray[np.uint32]
Ranks = npt.NDArray[np.uint64]

UNUSED_MAX: Final = 1 << 12  # names; fewer that nobody uses are not worth a new generation


class Names:
    """Strings as integers, by order of arrival; freed with this object.

    Polars keeps the mapping as long as some series refers to it: an empty one is enough.
    """

    def __init__(self) -> None:
        self._dtype = pl.Categorical(pl.Categories.random("ionwax"))
        self._alive = pl.Series([], dtype=self._dtype)
        self._ranking: tuple[pl.Series, Ranks] | None = None
        self.count = 0  # codes are below this

    def codes(self, names: pl.Series) -> Codes:
        """The code of each name (String, no nulls); new names get new ones."""
        codes: Codes = names.cast(self._dtype).to_physical().to_numpy()
        self.count = max(self.count, int(np.max(codes, initial=0)) + 1)
        return codes

    def ranking(self) -> tuple[pl.Series, Ranks]:
        """All names in order, and by code the place of each. Cheap where no name is new since the last call."""
        if self._ranking is None or len(self._ranking[1]) < self.count:
            codes = np.arange(self.count, dtype=np.uint32)
            names, (ranks,) = _ranked([pl.Series(codes).cat.to(self._dtype).cast(pl.String())])
            self._ranking = names, ranks
        return self._ranking


def merged(rankings: Sequence[tuple[pl.Series, Ranks]]) -> tuple[pl.Series, Sequence[Ranks]]:
    """One ranking of all names in several; answers with the names in order, and for each the places by code."""
    if len(rankings) == 1:
        return rankings[0][0], [rankings[0][1]]
    names, places = _ranked([names for names, _ in rankings])
    return names, [place[ranks] for place, (_, ranks) in zip(places, rankings, strict=True)]


def _ranked(several: Sequence[pl.Series]) -> tuple[pl.Series, Sequence[Ranks]]:
    """The distinct names in order, and for each series the place of each of its names among them."""
    known = pl.concat(several)
    order = known.arg_sort().to_numpy()
    ordered = known.gather(order)
    is_new = np.ones(len(ordered), bool)
    is_new[1:] = (ordered.slice(1) != ordered.slice(0, len(ordered) - 1)).to_numpy()
    places = np.empty(len(order), np.uint64)
    places[order] = np.cumsum(is_new) - 1
    return ordered.filter(pl.Series(is_new)), np.split(places, np.cumsum([len(names) for names in several])[:-1])


class Generation:
    """The names of devices and metrics that arrive in one stretch of the log."""

    def __init__(self) -> None:
        self.devices, self.metrics = Names(), Names()
        self._shape: tuple[pl.Series, Codes] | None = None  # metrics of the messages before, and their codes

    def metric_codes(self, columns: Columns) -> tuple[Codes, bool]:
        """The codes of the readings' metrics. True beside them: only of the first message, and all are of its shape.

        Most slices are so; their shape is interned once, and is the same array each time.
        """
        metrics = pl.Series(columns.metric, dtype=pl.String())
        period = columns.period
        if not period:
            return self.metrics.codes(metrics), False
        shape = metrics.slice(0, period)
        if self._shape is None or len(self._shape[0]) != period or not (self._shape[0] == shape).all():
            self._shape = pl.Series(shape.to_list()), self.metrics.codes(shape)
        return self._shape[1], True

    def is_stale(self, devices: int, metrics: int) -> bool:
        """Whether a window that held this many of each left most names unused."""
        return self.devices.count + self.metrics.count > 2 * (devices + metrics) + UNUSED_MAX
