"""Durations as people type them: ``90``, ``90s``, ``10m``, ``1.5h``, ``2d``."""

import argparse
import re
from typing import Final

_SECS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """Seconds of a duration; an argparse type. A number without a unit is seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 90s, 10m or 1.5h")
    return float(found[1]) * _SECS[found[2]]


def spoken(secs: float) -> str:
    """``75`` as ``1m 15s``; whole seconds, at most two units."""
    total = int(secs)
    for unit, size, below, smaller in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if total >= size:
            rest = total % size // smaller
            return f"{total // size}{unit} {rest}{below}" if rest else f"{total // size}{unit}"
    return f"{total}s"
