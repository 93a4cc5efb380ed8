"""What a payload says, before anybody judged it: the shape into which every format brings its own.

A format is a function from the bytes of a payload to its messages, or to the flaw for which it is none.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dataflows.decoding.reasons import Flaw


class Said(NamedTuple):
    """One message as its payload has it. None is absent; otherwise any value that JSON can write.

    ``raw`` are bytes that the device wants carried along.
    """

    device_id: Any
    ts: Any
    metrics: Any
    raw: bytes = b""


Format = Callable[[bytes], Sequence[Said | Flaw] | Flaw]
"""At least one message; a ``Flaw`` in the place of one is that message's alone, and its neighbours are good."""
