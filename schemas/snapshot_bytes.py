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
_HEAD: Final = struct.Struct("<Q")  # length of the description


def encode(snapshot: Snapshot) -> bytes:
    """``snapshot`` as bytes; ``resume`` is not in them. Needs room for them and for the largest array."""
    codec = pa.Codec("zstd", _LEVEL)
    packed = [bytes(codec.compress(_sorted(array), asbytes=True)) for array in snapshot.arrays.values()]
    described = [
        [name, array.dtype.str, list(array.shape), len(part)]
        for (name, array), part in zip(snapshot.arrays.items(), packed, strict=True)
    ]
    description = msgspec.json.encode({"format": FORMAT, "facts": snapshot.facts, "arrays": described})
    return b"".join([_HEAD.pack(len(description)), description, *packed])


def decode(resume: int, content: bytes) -> Snapshot:
    """The snapshot that ``encode`` made. Raises ``ValueError`` where it was made by another version."""
    (length,) = _HEAD.unpack_from(content)
    at = _HEAD.size + length
    description: dict[str, Any] = msgspec.json.decode(content[_HEAD.size : at])
    if description.get("format") != FORMAT:
        raise ValueError(f"format {description.get('format')}, where this version reads {FORMAT}")
    codec = pa.Codec("zstd")
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, kind, shape, size in description["arrays"]:
        dtype = np.dtype(kind)
        count = int(np.prod(shape, dtype=np.int64))
        plain = codec.decompress(content[at : at + size], count * dtype.itemsize, asbytes=True)
        found = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, count)
        arrays[name] = np.ascontiguousarray(found.T).reshape(-1).view(dtype).reshape(shape)
        at += size
    return Snapshot(resume, description["facts"], arrays)


def _sorted(array: npt.NDArray[Any]) -> bytes:
    """All first bytes, all second bytes, …"""
    flat = np.ascontiguousarray(array).reshape(-1)
    return np.ascontiguousarray(flat.view(np.uint8).reshape(-1, array.itemsize).T).tobytes()
