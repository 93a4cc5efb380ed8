"""Anomalies as text: how many there were, and the newest of them. Pure."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from infra.demo.figures import Figures, Flagged
from infra.demo.marks import BAD, DIM, HEAD, KEY, clock, numbers


def counted(figures: Figures, width: int) -> Text:
    """How many anomalies there were, in one line, and the newest one as far as it finds room."""
    text = numbers([(figures.episodes, "anomalies,"), (figures.episodes_open, "open")])
    if figures.flagged:
        text.append("  ").append_text(flagged(figures.flagged[0]))
    text.truncate(width, overflow="ellipsis")
    return text


def flagged(one: Flagged) -> Text:
    """An episode: when, whose, which rule, and what the minute was against what was allowed."""
    who = " ".join(filter(None, (one.device_id, one.metric))) or "the pipeline"
    text = Text.assemble((clock(one.opened_ms)[:5], DIM), f" {who} ", (one.detector, BAD if _grave(one) else KEY))
    if one.value is not None:
        text.append(f" {one.value:,.2f}")
        low, high = (None if end is None else f"{end:,.2f}" for end in (one.lower, one.upper))
        if low and high:
            text.append(f" (usual {low} to {high})", DIM)
        elif low or high:
            text.append(f" (limit {low or high})", DIM)
    if one.closed_ms is not None:
        text.append(f" until {clock(one.closed_ms)[:5]}", DIM)
    return text


def _grave(one: Flagged) -> bool:
    return one.severity == "critical"


def anomalies(figures: Figures, lines_max: int) -> RenderableType:
    """The newest episodes, one a line."""
    grid = Table.grid()
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_row(Text("anomalies", HEAD))
    for one in figures.flagged[: lines_max - 1]:
        grid.add_row(flagged(one))
    return grid
