"""The demo's figures as text: they fit any terminal, and say when something does not add up."""

import io
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from infra.demo import view
from infra.demo.figures import Figures, Flagged, Place, Rollup
from infra.demo.view import Banner
from schemas.progress import Counts

BANNER = Banner(
    servers=[("Apache Artemis 2.55.0", "127.0.0.1:25830"), ("Apache Kafka 4.3.0", "127.0.0.1:19866")],
    commands=["./justw publish boiler-7 temperature=21.5 --wait", './justw sql "select 1"', "./justw notebook"],
    table="rollups_1m",
    lateness_ms=10_000,
)
FLEET = {"sent": 14_697, "acked": 14_690, "refused": 0, "resent": 0, "reconnects": 0, "behind_ms": 0}
FIGURES = Figures(
    secs=63.2,
    first_rollups_secs=9.4,
    fleet=FLEET,
    messages_per_sec=24.1,
    places={i: Place(2_500 + i, 0, 2_510, 1_763_700_000_000) for i in range(4)},
    counts=Counts(
        messages=9_906,
        ticks=90,
        refused=8,
        gaps=2,
        readings=40_000,
        counted=36_000,
        late=96,
        duplicates=1_400,
        open=2_504,
    ),
    rows=1_040,
    windows=11,
    revised=16,
    refused={"timestamp_in_future": 225, "not_a_number": 47, "not_json": 25, "device_mismatch": 13, "bad_name": 9},
    newest=[Rollup(1_763_699_940_000, f"boiler-{i}", "temperature", 60, 43.2, 42.1, 44.9, i % 2) for i in range(40)],
)

counts = st.builds(Counts, *[st.integers(0, 10**9)] * 10)
places = st.builds(Place, *[st.integers(0, 10**9)] * 3, st.none() | st.integers(0, 4 * 10**12))
rollups = st.builds(
    Rollup,
    st.integers(0, 4 * 10**12),
    st.text(
        st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=256
    ),  # as long as an id may be, and wide
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=256),
    *[st.integers(0, 10**6)],
    *[st.floats(-1e9, 1e9)] * 3,
    st.integers(0, 9),
)
numbers = st.none() | st.floats(-1e9, 1e9)
names = st.text(st.characters(exclude_categories=("C", "Z")), max_size=256)
episodes = st.builds(
    Flagged,
    st.integers(0, 4 * 10**12),
    st.none() | st.integers(0, 4 * 10**12),
    names,
    names,
    st.just("too-hot"),
    st.sampled_from(["warning", "critical"]),
    *[numbers] * 4,
)
all_figures = st.builds(
    Figures,
    secs=st.floats(0, 10**6),
    first_rollups_secs=st.none() | st.floats(0, 10**4),
    fleet=st.none() | st.just(FLEET | {"resent": 7, "behind_ms": 9_000}),
    messages_per_sec=st.floats(0, 10**6),
    places=st.dictionaries(st.integers(0, 63), places, max_size=64),
    counts=counts,
    rows=st.integers(0, 10**9),
    windows=st.integers(0, 10**4),
    revised=st.integers(0, 10**6),
    days_differ=st.integers(-5, 5),
    refused=st.dictionaries(st.sampled_from(list(FIGURES.refused)), st.integers(1, 10**9)),
    newest=st.lists(rollups, max_size=40),
    flags=st.integers(0, 10**9),
    episodes=st.integers(0, 10**9),
    episodes_open=st.integers(0, 10**6),
    flagged=st.lists(episodes, max_size=40),
    trouble=st.none() | st.just("connection refused " * 9),
)


def drawn(figures: Figures, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    with console.capture() as captured:
        console.print(view.frame(figures, BANNER, console, width, height))
    return captured.get().splitlines()


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # shrinking: minutes
@given(figures=all_figures, width=st.integers(80, 200), height=st.integers(24, 70))
def test_a_frame_fits_its_terminal(figures, width, height):
    """No more lines than there are, whatever the numbers, the ids, or what else went wrong."""
    lines = drawn(figures, width, height)
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_a_usual_terminal_shows_what_matters(width, height):
    """The ledger, the log, what was rejected, some rollups, and what to type next; a larger one fills itself."""
    text = "\n".join(lines := drawn(FIGURES, width, height))
    for wanted in ("40,000 readings", "14,697 sent", "watermark", "boiler-1", "./justw publish", "319", "04:40:10"):
        assert wanted in text
    assert "✗" not in text
    assert len(lines) == height


def test_the_newest_anomaly_is_shown_with_what_it_was_against():
    """In the smallest terminal cut at its edge; in a larger one each has a line of its own."""
    at = 1_763_699_940_000
    stuck = Flagged(at, at + 300_000, "pump-2", "vibration", "stuck", "info", 0.5, None, None, None)
    surge = Flagged(at, None, "turbine-1", "pressure", "novelty", "warning", 12.47, 4.0, 2.42, 5.75)
    figures = replace(FIGURES, episodes=40, episodes_open=36, flagged=[surge, stuck])
    small, large = "\n".join(drawn(figures, 80, 24)), "\n".join(drawn(figures, 120, 40))
    assert "40 anomalies, 36 open  04:39 turbine-1 pressure novelty 12.47" in small
    assert large.count("turbine-1 pressure novelty 12.47 (usual 2.42 to 5.75)") == 2
    assert "04:39 pump-2 vibration stuck 0.50 until 04:44" in large


def test_columns_are_aligned():
    """Numbers of the partitions stand below one another."""
    rows = [
        line for line in drawn(FIGURES, 80, 24) if any(name in line for name in ("partition", "position", "log end"))
    ]
    assert len(rows) == 3
    assert len({len(row.rstrip()) for row in rows}) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"counts": replace(FIGURES.counts, counted=35_999)}, "+1 unexplained"),
        ({"counts": replace(FIGURES.counts, messages=9_907)}, "-1 unexplained"),
        ({"days_differ": -3}, "-3 unexplained"),
    ],
)
def test_what_does_not_add_up_is_shown_with_its_difference(wrong, said):
    """Each of the three equations by itself turns its tick into a cross, in the frame, the line and the verdict."""
    figures = replace(FIGURES, **wrong)
    text = "\n".join(drawn(figures, 120, 40))
    assert text.count("✗") == 1
    assert said in text
    assert view.unexplained(figures)
    assert "NOT balance" in view.line(figures, BANNER)
    assert not view.unexplained(FIGURES)


def test_a_line_says_how_far_everything_is():
    """All figures, in the order of the stream, then the verdict; before anything closed the watermark is a dash."""
    line = " ".join(view.line(FIGURES, BANNER).split())
    assert line.startswith(
        "63 s 9,906 messages 34 to go watermark 04:40:10 1,040 rows 0 anomalies 96 late 1,400 duplicates 319 "
    )
    assert line.endswith("319 rejected ledger balances")
    assert "watermark –" in view.line(replace(FIGURES, places={}), BANNER)


def test_trouble_is_shown():
    """What could not be asked stands in the title."""
    assert "the database is away" in "\n".join(drawn(replace(FIGURES, trouble="the database is away"), 100, 30))
