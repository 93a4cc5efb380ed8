"""The figures as text, for a terminal of any size: what does not fit is left out by its worth, never cut in the middle.

Pure: figures in, something for rich to print out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra.demo.anomalies import anomalies, counted
from infra.demo.figures import Figures, Place
from infra.demo.marks import BAD, DIM, GOOD, HEAD, KEY, clock, numbers

LABEL_CHARS: Final = 9
NOUN_CHARS: Final = 8
ROLLUPS_FIRST: Final = 6  # lines of rollups before there is room for anomalies


@dataclass(frozen=True, slots=True)
class Banner:
    """What does not change while a demo runs: its servers (name and version, address), and what to type next."""

    servers: Sequence[tuple[str, str]]
    commands: Sequence[str]
    table: str  # of the rollups
    lateness_ms: int


def frame(figures: Figures, banner: Banner, console: Console, width: int, height: int) -> Group:
    """At most ``height`` lines of ``width``. More height shows more: first rollups, then what the servers are."""
    blocks: dict[str, RenderableType] = {
        "title": title(figures, width),
        "servers": servers(banner),
        "gap": Text(),
        "stream": stream(figures, banner, width, brief=height < 30),
        "gap 2": Text(),
        "ledger": ledger(figures, width),
        "gap 3": Text(),
        "commands": commands(banner),
    }
    size = {name: _lines(block, console, width) for name, block in blocks.items()}
    for name, rollups in (("servers", 6), ("gap 3", 2), ("gap", 2), ("gap 2", 2), ("commands", 2)):
        if sum(size.values()) + rollups > height:
            size[name] = 0
    shown = {name: block for name, block in blocks.items() if size[name]}
    room = height - sum(size.values())
    parts = list(shown.items())
    at = next((i for i, (name, _) in enumerate(parts) if name in ("gap 3", "commands")), len(parts))
    shown_anomalies = min(len(figures.flagged), room - ROLLUPS_FIRST - 3)
    if shown_anomalies > 0:
        room -= shown_anomalies + 2
        parts[at:at] = [("gap 5", Text()), ("anomalies", anomalies(figures, shown_anomalies + 1))]
    if room >= 3:
        parts[at:at] = [("gap 4", Text()), ("newest", newest(figures, room - 1, width))]
    elif room == 2:
        parts[at:at] = [("newest", newest(figures, room, width))]
    return Group(*(block for _, block in parts))


def _lines(block: RenderableType, console: Console, width: int) -> int:
    return len(console.render_lines(block, console.options.update(width=width), pad=False))


def title(figures: Figures, width: int) -> RenderableType:
    minutes, secs = divmod(int(figures.secs), 60)
    left = Text.assemble(("ionwax demo", HEAD), f"  {minutes}:{secs:02}")
    if figures.first_rollups_secs is None:
        left.append("  no minute has closed yet", DIM)
    else:
        left.append(f"  first rollups after {figures.first_rollups_secs:.1f} s", DIM)
    if figures.trouble:
        left.append(f"  {figures.trouble}", BAD)
    right = Text("Ctrl-C stops it all", DIM)
    gap = width - left.cell_len - right.cell_len
    line = Text.assemble(left, " " * gap, right) if gap > 1 else left
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def servers(banner: Banner) -> RenderableType:
    grid = _grid()
    grid.add_column(ratio=1)
    chars = max(len(name) for name, _ in banner.servers) + 2
    for i, (name, where) in enumerate(banner.servers):
        grid.add_row("" if i else "servers", Text.assemble(name.ljust(chars), (where, DIM)))
    return grid


def stream(figures: Figures, banner: Banner, width: int, brief: bool = False) -> RenderableType:
    """From the devices to the table, in the order in which a reading travels; ``brief`` keeps each to one line."""
    grid = _grid()
    grid.add_column(ratio=1)
    if figures.fleet is not None:
        grid.add_row("devices", _fleet(figures.fleet))
    grid.add_row("log", _log(figures))
    grid.add_row("", partitions(figures.places, banner.lateness_ms, width - LABEL_CHARS - 1))
    grid.add_row("table", _table(figures, banner))
    grid.add_row("rejected", _rejected(figures.refused, width - LABEL_CHARS - 1, brief))
    grid.add_row("flags", counted(figures, width - LABEL_CHARS - 1))
    return grid


def _fleet(told: Mapping[str, object]) -> Text:
    text = numbers([(told["sent"], "sent"), (told["acked"], "acknowledged")])
    for name in ("refused", "resent", "reconnects"):
        if told[name]:
            text.append(f"  {told[name]:,} {name}", BAD)
    behind_ms = told["behind_ms"]
    if isinstance(behind_ms, int) and behind_ms > 5_000:
        text.append(f"  {behind_ms // 1_000} s behind", BAD)
    return text


def _log(figures: Figures) -> Text:
    counts = figures.counts
    text = numbers([(counts.readings, "readings in"), (counts.messages, "messages")])
    text.append(f"  {figures.messages_per_sec:,.0f}/s", DIM)
    return text


def partitions(places: Mapping[int, Place], lateness_ms: int, width: int) -> RenderableType:
    """Position, end and watermark by partition, side by side; where not all find room, those furthest behind."""
    columns = [
        (Text(str(partition), DIM), f"{place.position:,}", f"{place.end:,}", clock(place.closed_ms, lateness_ms))
        for partition, place in sorted(places.items())
    ]
    chars = max((len(cell) for column in columns for cell in column), default=0) + 2
    room = max(1, (width - len("partition")) // chars)
    if len(columns) > room:
        behind = sorted(places, key=lambda partition: places[partition].position - places[partition].end)[:room]
        columns = [column for column, partition in zip(columns, sorted(places), strict=True) if partition in behind]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=DIM)
    for _ in columns:
        grid.add_column(justify="right")
    for name, *cells in zip(("partition", "position", "log end", "watermark"), *columns, strict=True):
        grid.add_row(name, *cells)
    return grid


def _table(figures: Figures, banner: Banner) -> Text:
    text = numbers([(figures.rows, f"rows in {banner.table},"), (figures.windows, "minutes")])
    if figures.revised:
        text.append(f"  {figures.revised:,} revised by late readings", DIM)
    return text


def _rejected(refused: Mapping[str, int], width: int, brief: bool) -> Text:
    reasons = [Text.assemble(f"{count:,} ", (reason, DIM)) for reason, count in refused.items()]
    total = Text.assemble((f"{sum(refused.values()):,}", KEY), " payloads")
    text = _wrapped([total, *reasons], width, "  ")
    left_out = 0
    while brief and "\n" in text.plain:
        left_out += 1
        text = _wrapped([total, *reasons[:-left_out], Text(f"and {left_out} more", DIM)], width, "  ")
    return text


def ledger(figures: Figures, width: int) -> RenderableType:
    """The three equations of the ledger, each with a tick or with what it does not explain."""
    counts = figures.counts
    moved, in_rows = _moved(figures), counts.counted + counts.late + figures.days_differ
    total_chars = len(f"{max(counts.readings, moved):,}")
    grid = _grid()
    grid.add_column(width=1)
    grid.add_column(width=total_chars, justify="right")
    grid.add_column(width=NOUN_CHARS)
    grid.add_column(ratio=1)
    room = width - LABEL_CHARS - total_chars - NOUN_CHARS - 5
    readings = ("counted", "late", "duplicates", "late_duplicates", "open")
    offsets = ("messages", "ticks", "refused", "gaps")
    for label, total, noun, wrong, words in (
        ("ledger", counts.readings, "readings", counts.unexplained, [(getattr(counts, it), it) for it in readings]),
        ("", moved, "offsets", moved - counts.offsets, [(getattr(counts, it), it) for it in offsets]),
        ("", in_rows, "in rows", figures.days_differ, [(counts.counted, "counted"), (counts.late, "late")]),
    ):
        mark = Text("✗", BAD) if wrong else Text("✓", GOOD)
        terms = [
            Text.assemble(("+ " if i else "= ", DIM), f"{count:,} ", (name.replace("_", " "), DIM))
            for i, (count, name) in enumerate(words)
        ]
        if wrong:
            terms.append(Text(f"{wrong:+,} unexplained", BAD))
        equation = _wrapped(terms, room, " ")
        grid.add_row(label, mark, Text(f"{total:,}", KEY), noun, equation)
    return grid


def unexplained(figures: Figures) -> bool:
    """Whether one of the equations does not hold."""
    counts = figures.counts
    return bool(counts.unexplained or figures.days_differ or counts.offsets != _moved(figures))


def _moved(figures: Figures) -> int:
    return sum(place.position - place.start for place in figures.places.values())


def _wrapped(terms: Sequence[Text], width: int, gap: str) -> Text:
    """Terms side by side, in as many lines as it takes; no term is broken."""
    text, column = Text(), 0
    for i, term in enumerate(terms):
        if i and column + len(gap) + term.cell_len > width:
            text.append("\n")
            column = 0
        elif i:
            text.append(gap)
            column += len(gap)
        text.append_text(term)
        column += term.cell_len
    return text


def newest(figures: Figures, lines_max: int, width: int) -> RenderableType:
    """A few rows of the newest minute that has closed everywhere."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, max_width=max(12, width - 56), overflow="ellipsis")
    grid.add_column(no_wrap=True, max_width=12, overflow="ellipsis")
    for _ in range(5):
        grid.add_column(justify="right")
    when = f"minute {clock(figures.newest[0].bucket_ms)[:5]} UTC" if figures.newest else "newest minute"
    grid.add_row(Text(when, HEAD), *(Text(name, DIM) for name in ("", "count", "mean", "min", "max", "revision")))
    for row in figures.newest[: max(0, lines_max - 1)]:
        values = (f"{value:,.2f}" for value in (row.mean, row.min, row.max))
        grid.add_row(row.device_id, Text(row.metric, DIM), f"{row.count:,}", *values, str(row.revision or ""))
    return grid


def commands(banner: Banner) -> RenderableType:
    return Group(
        *(Text.assemble(("$ ", DIM), command, no_wrap=True, overflow="ellipsis") for command in banner.commands)
    )


def _grid() -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=LABEL_CHARS, style=HEAD)
    return grid


def line(figures: Figures, banner: Banner) -> str:
    """The figures in one line, for a file or a pipe."""
    counts, places = figures.counts, figures.places.values()
    behind = sum(place.end - place.position for place in places)
    closed = [place.closed_ms for place in places]
    watermark = None if None in closed or not closed else min(ms for ms in closed if ms is not None)
    return (
        f"{figures.secs:6.0f} s  {counts.messages:>9,} messages  {behind:>5,} to go"
        f"  watermark {clock(watermark, banner.lateness_ms):<8}  {figures.rows:>7,} rows"
        f"  {figures.episodes:>3,} anomalies"
        f"  {counts.late:>5,} late  {counts.duplicates:>5,} duplicates  {sum(figures.refused.values()):>5,} rejected"
        f"  ledger {'does NOT balance' if unexplained(figures) else 'balances'}"
        + (f"  {figures.trouble}" if figures.trouble else "")
    )


def summary(figures: Figures, banner: Banner, width: int) -> RenderableType:
    """What remains to be said when all has stopped."""
    first = figures.first_rollups_secs
    when = "no minute closed" if first is None else f"first rollups {first:.1f} s after the start"
    return Group(stream(figures, banner, width), ledger(figures, width), Text(when, DIM))
