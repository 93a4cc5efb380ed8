"""The cases of `./justw bench windows`: the core alone, and beside Bytewax's own windowing."""

from collections.abc import Sequence

from infra.bench.case import Case

CORE, BYTEWAX = "infra.bench.windows_core", "infra.bench.windows_bytewax"


def cases() -> Sequence[Case]:
    return [*_core(), *_bytewax()]


def _core() -> list[Case]:
    """Batches are of readings; there are four to a message."""
    made = []
    for batch, readings in ((1_000, 2_000_000), (10_000, 8_000_000), (100_000, 12_000_000)):
        for series in (1_000, 200, 20_000, 1_000_000):
            minutes = 5 if series < 1_000_000 else 2
            arguments = {"series": series, "batch": batch, "readings": readings, "minutes": minutes}
            group = f"The core alone, batches of {batch:,} readings"
            made.append(Case(group, f"{series:,} series", CORE, "core", arguments, base=series == 1_000))
    return made


def _bytewax() -> list[Case]:
    """Equal readings a minute; ours for longer, since it would be over before it could be measured."""
    made = []
    for series in (1_000, 10_000):
        group = f"In Bytewax, one worker, {series:,} series, items or batches of 10,000"
        for function, minutes in (("fold_window", 5), ("collect_window", 5), ("core", 100)):
            name = {"core": "window core"}.get(function, f"Bytewax `{function}`")
            arguments = {"series": series, "readings": 80_000 * minutes, "minutes": minutes}
            made.append(Case(group, name, BYTEWAX, function, arguments, base=function == "fold_window"))
    return made
