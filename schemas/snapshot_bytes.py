"""A snapshot as bytes: facts as JSON, arrays beside each other, compressed (zstd).

Rule: every array comes back to the bit. The bytes of numbers are sorted by their place in the number before they are
compressed (as Blosc does), since high bytes of neighbours are alike: a third less for doubles.
"""

import struct
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.flags import Snapshot

FORMAT: Final = 1
_LEVEL: Final = 1
_HEAD: Final = struct.Struct("<IQ")  # length of the description, and of all


def encode(snapshot: Snapshot) -> bytes:
    """``snapshot`` as bytes; ``resume`` is not in them."""
    arrays = {name: np.ascontiguousarray(array) for name, array in snapshot.arrays.items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    description = msgspec.json.encode({"format": FORMAT, "facts": snapshot.facts, "arrays": described})
    content = b"".join([description, *(_sorted(array) for array in arrays.values())])
    packed = pa.Codec("zstd", _LEVEL).compress(content, asbytes=True)
    return _HEAD.pack(len(description), len(content)) + bytes(packed)


def decode(resume: int, packed: bytes) -> Snapshot:
    """The snapshot that ``encode`` made. Raises ``ValueError`` where it was made by another version."""
    length, size = _HEAD.unpack_from(packed)
    content = pa.Codec("zstd").decompress(packed[_HEAD.size :], size, asbytes=True)
    description: dict[str, Any] = msgspec.json.decode(content[:length])
    if description.get("format") != FORMAT:
        raise ValueError(f"format {description.get('format')}, where this version reads {FORMAT}")
    arrays: dict[str, npt.NDArray[Any]] = {}
    at = length
    for name, kind, shape in description["arrays"]:
        dtype = np.dtype(kind)
        count = int(np.prod(shape, dtype=np.int64))
        end = at + count * dtype.itemsize
        found = np.frombuffer(content, np.uint8, end - at, at).reshape(dtype.itemsize, count)
        arrays[name] = np.ascontiguousarray(found.T).view(dtype).reshape(shape)
        at = end
    return Snapshot(resume, description["facts"], arrays)


def _sorted(array: npt.NDArray[Any]) -> bytes:
    """All first bytes, all second bytes, …"""
    return np.ascontiguousarray(array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T).tobytes()
