"""Many byte strings in one piece, cut out when asked for.

A batch of records is read as a matrix far more often than one by one, and thousands of small objects that live from the
source to the decoder cost more than all that is done with them.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

Sizes = npt.NDArray[np.integer[Any]]


class Packed(Sequence[bytes]):
    """Byte strings that follow one another in ``data``, each of its size in ``sizes``. Never changed once made."""

    __slots__ = ("_starts", "data", "sizes", "stride")

    def __init__(self, data: bytes | bytearray, sizes: Sizes) -> None:
        self.data: Final = data
        self.sizes: Final = sizes
        self.stride: Final = int(sizes[0]) if len(sizes) and (sizes == sizes[0]).all() else 0  # where all are equal
        self._starts: Sizes | None = None

    @classmethod
    def of(cls, values: Sequence[bytes]) -> "Packed":
        """The same strings in one piece; ``values`` itself where they are so already."""
        if isinstance(values, cls):
            return values
        return cls(b"".join(values), np.fromiter(map(len, values), np.int64, len(values)))

    @property
    def starts(self) -> Sizes:
        """Where each string begins, and where the last one ends."""
        if self._starts is None:
            self._starts = np.concatenate(([0], np.cumsum(self.sizes)))
        return self._starts

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        return bytes(self.data[self.starts[at] : self.starts[at + 1]])

    def __iter__(self) -> Iterator[bytes]:
        data = self.data
        return (bytes(data[start:end]) for start, end in pairwise(self.starts.tolist()))
