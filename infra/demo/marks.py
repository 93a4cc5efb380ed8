"""How the demo's picture marks things: colours, numbers, times of day. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.text import Text

DIM, GOOD, BAD, HEAD, KEY = "bright_black", "green", "bold red", "bold cyan", "bold"


def numbers(pairs: Sequence[tuple[object, str]]) -> Text:
    text = Text()
    for i, (number, name) in enumerate(pairs):
        text.append(" " if i else "")
        text.append(f"{number:,}", KEY)
        text.append(f" {name}" if name else "")
    return text


def clock(ms: int | None, plus_ms: int = 0) -> str:
    return "–" if ms is None else f"{datetime.fromtimestamp((ms + plus_ms) / 1_000, UTC):%H:%M:%S}"
