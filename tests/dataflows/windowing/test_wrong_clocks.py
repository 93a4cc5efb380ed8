"""Wrong clocks harm nobody: backlogs and live flow with devices whose clocks are off by minutes.

Beside each, for comparison, what a watermark that follows the maximum of event times would have done to the same log.
"""

from collections import Counter, deque

import pytest

from schemas.progress import Progress
from tests.dataflows.windowing.fleets import BASE, OUTAGE, Fleet, late_by_maximum, slices_of
from tests.dataflows.windowing.replay import open_core
from tests.oracles import Message, Rules, Tick

SCENARIOS = {
    "drained at 1.5 times real speed": Fleet(speeds=(1.5,)),
    "drained at 5 times real speed": Fleet(speeds=(5.0,)),
    "drained at 20 times real speed": Fleet(speeds=(20.0,)),
    "two clients, one half as quick": Fleet(speeds=(4.0, 2.0)),
    "live readings overtake the backlog": Fleet(speeds=(5.0,), overtaking=True),
    "live readings overtake a quick drain": Fleet(speeds=(20.0,), overtaking=True),
    "two clients, and live readings overtake": Fleet(speeds=(10.0, 5.0), overtaking=True),
    "three devices, one of them wrong": Fleet(devices=3, wrong=1, every_ms=5_000, speeds=(5.0,)),
    "three devices, one of them wrong, drained slowly": Fleet(
        devices=3, wrong=1, every_ms=5_000, speeds=(1.5,), seed=2
    ),
    "a log that starts in a backlog": Fleet(speeds=(20.0,), starts_in_backlog=True),
    "a log that starts in a slow backlog": Fleet(speeds=(1.5,), starts_in_backlog=True),
}
DRAINS = [name for name, fleet in SCENARIOS.items() if not fleet.overtaking]


def late_devices(fleet: Fleet, records: list[Message | Tick], batch: int = 2_000) -> Counter[str]:
    core = open_core(Rules(workers=fleet.workers), Progress.begin(0))
    late: Counter[str] = Counter()
    for part in slices_of(records, batch):
        late.update(core.feed(part).late["device_id"].to_list())
    return late


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_honest_reading_is_late(name: str):
    """Whatever the wrong clocks say, every reading of a device whose clock is right counts in its window."""
    fleet = SCENARIOS[name]
    late = late_devices(fleet, fleet.records())
    assert {device: n for device, n in late.items() if fleet.is_honest(device)} == {}


@pytest.mark.parametrize("name", DRAINS)
def test_a_maximum_of_event_times_makes_much_of_a_backlog_late(name: str):
    """The comparison: one fast clock in fifty, and by that rule more readings are late than half of what was held."""
    fleet = SCENARIOS[name]
    records = fleet.records()
    late = late_by_maximum(records, Rules())
    held = [r for r in records if isinstance(r, Message) and OUTAGE[0] <= r.event - BASE < OUTAGE[1]]
    honest = sum(fleet.is_honest(record.device) for record in held)
    assert sum(n for device, n in late.items() if fleet.is_honest(device)) > honest / 2


@pytest.mark.parametrize("speed", [1.5, 5.0, 20.0])
@pytest.mark.parametrize("devices", [3, 150])
def test_open_rows_stay_within_quiet_secs_of_those_of_a_maximum_of_event_times(devices: int, speed: float):
    """A rule that waits holds more rows: what the maximum held quiet_secs ago, and what was appended since, at most."""
    rules = Rules(workers=("ingest-0",))
    fleet = Fleet(devices=devices, wrong=0, speeds=(speed,))  # where all clocks are right that rule is comparable
    core = open_core(rules, Progress.begin(0))
    newest, rows, windows = 0, 0, Counter[int]()
    past = deque([(0, 0, 0)])  # append time, rows until then, and how many of them the maximum held
    for part in slices_of(fleet.records(), 50):
        core.feed(part)
        event, append = (part.messages[name].to_numpy() for name in ("event_time", "append_time"))
        newest, rows = max(newest, int(event.max(initial=0))), rows + len(event)
        windows.update((event // rules.length * rules.length).tolist())
        held = sum(n for start, n in windows.items() if start + rules.length + rules.lateness > newest)
        now = int(append.max(initial=past[-1][0]))
        past.append((now, rows, held))
        while past[1][0] <= now - rules.quiet:
            past.popleft()
        _, rows_then, held_then = past[0]
        assert core.open_rows <= held_then + rows - rows_then


AFTER_OUTAGE = (
    Message(0, BASE + 5_000, BASE + 5_000, "5", (("t", 1.0),)),
    Message(1, BASE + 620_000, BASE + 200_000, "0", (("t", 1.0),)),
    Message(2, BASE + 629_999, BASE + 25_000, "5", (("t", 2.0),)),
)


def test_a_fast_clock_that_speaks_first_after_an_outage_harms_nobody():
    """After ten silent minutes the window that the silence cut is quiet, but nothing past it has stood for long."""
    assert late_devices(Fleet(), list(AFTER_OUTAGE)) == {}


def test_a_silence_in_the_midst_of_a_backlog_may_close_the_window_it_cuts():
    """Where the rule ends: the fast clock was read in a backlog, and then the log is silent for quiet_secs.

    What the cut window still lacks is late then, and revises its row; nothing is lost.
    """
    for silence, late in ((9_999, {}), (10_000, {"5": 1})):
        now = BASE + 629_999 + silence
        fast = Message(3, now, BASE + 240_000, "0", (("t", 3.0),))
        honest = Message(4, now, BASE + 45_000, "5", (("t", 4.0),))
        assert late_devices(Fleet(), [*AFTER_OUTAGE, fast, honest]) == late
