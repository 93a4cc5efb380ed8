"""What a person may ask of a demo."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for. ``mqtt`` and ``topic`` are of their own broker, which takes the fleet's place."""

    devices: int = 24
    history_secs: float = 600.0
    for_secs: float | None = None
    mqtt: str | None = None
    topic: str | None = None
    faults: str = "all"
    seed: int = 1
    record: Path | None = None
