"""Where a demo speaks: a live terminal that is drawn twice a second, or plain lines for a file or a pipe."""

import time
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.live import Live

from infra.demo import view
from infra.demo.anomalies import flagged
from infra.demo.figures import Watch
from infra.demo.view import Banner

LOOK_SECS: Final = 0.1
PLAIN_EVERY_SECS: Final = 5.0


def show(watch: Watch, banner: Banner, console: Console, until: Callable[[], bool]) -> None:
    """Show the figures until ``until`` says so, which is asked ten times a second."""
    if console.is_terminal:
        _show_live(watch, banner, console, until)
    else:
        _show_lines(watch, banner, console, until)


def _show_live(watch: Watch, banner: Banner, console: Console, until: Callable[[], bool]) -> None:
    """On the terminal's other screen, drawn over and never cleared, so that nothing flickers and nothing scrolls."""
    drawn = None
    with Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
        while not until():
            seen = (watch.figures, console.size)
            if seen != drawn:
                width, height = console.size
                live.update(view.frame(watch.figures, banner, console, width, height), refresh=True)
                drawn = seen
            time.sleep(LOOK_SECS)


def _show_lines(watch: Watch, banner: Banner, console: Console, until: Callable[[], bool]) -> None:
    next_secs = watch.figures.secs
    said_first = False
    said: set[tuple[int, str, str, str]] = set()
    while not until():
        figures = watch.figures
        for one in reversed(figures.flagged):
            if (name := (one.opened_ms, one.device_id, one.metric, one.detector)) not in said:
                said.add(name)
                plain(console, f"  anomaly: {flagged(one).plain}")
        first = figures.first_rollups_secs is not None and not said_first
        if figures.secs >= next_secs or first:
            said_first = said_first or first
            next_secs = figures.secs + PLAIN_EVERY_SECS
            plain(console, view.line(figures, banner))
        time.sleep(LOOK_SECS)


def plain(console: Console, text: str) -> None:
    """One line as it is: not wrapped, not coloured by what it may look like."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)
