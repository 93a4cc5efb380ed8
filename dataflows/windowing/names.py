"""Names as small integers, so that strings are hashed once a message and never compared again.

Rule: names are interned by generation. A generation is replaced when half its devices were not in the window that
just closed, and is freed with the last window that holds rows of it: nothing grows with the devices ever seen.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

Codes = npt.NDArray[np.uint32]


class Names:
    """Strings as integers, by order of arrival; freed with this object.

    Polars keeps the mapping as long as some series refers to it: an empty one is enough.
    """

    def __init__(self) -> None:
        self._categories = pl.Categories.random("ionwax")
        self._dtype = pl.Categorical(self._categories)
        self._alive = pl.Series([], dtype=self._dtype)
        self.count = 0  # codes are below this

    def codes(self, names: pl.Series) -> Codes:
        """The code of each name (String, no nulls); new names get new ones."""
        codes: Codes = names.cast(self._dtype).to_physical().to_numpy()
        self.count = max(self.count, int(np.max(codes, initial=0)) + 1)
        return codes

    def names(self, codes: Codes) -> pl.Series:
        """The name of each code."""
        return pl.Series(codes).cat.to(self._dtype).cast(pl.String())


class Generation:
    """The names of devices and metrics that arrive in one stretch of the log."""

    def __init__(self) -> None:
        self.devices, self.metrics = Names(), Names()

    def metric_codes(self, sizes: npt.NDArray[np.uint32], metrics: pl.Series) -> Codes:
        """The code of each reading's metric, ``sizes`` of them a message.

        Most slices hold messages of one shape: where each message names the metrics of the one before, in the same
        order, those of the first are interned and repeated. Comparing costs a fifth of hashing.
        """
        period = int(sizes[0]) if len(sizes) else 0
        rest = len(metrics) - period
        if rest and (sizes == period).all() and (metrics.slice(period) == metrics.slice(0, rest)).all():
            return np.tile(self.metrics.codes(metrics.slice(0, period)), len(sizes))
        return self.metrics.codes(metrics)
