"""The time line of the package's docstring, and a few more drawn by hand."""

import numpy as np
import polars as pl
import pytest

from dataflows.windowing import Windows
from schemas.errors import OperatorError
from schemas.frames import MESSAGES, TICKS
from schemas.log import LogSlice, Refused
from schemas.progress import Claim, Progress
from schemas.settings import WindowSettings
from tests.dataflows.windowing.replay import answer, exact, run, slice_of
from tests.oracles import Message, Record, Rules, Tick
from tests.strategies import Log

NOON = 1_763_726_400_000
MINUTE = 60_000


def at(time: str) -> int:
    """Milliseconds of "minute:second" after noon."""
    minute, second = time.split(":")
    return NOON + int(minute) * MINUTE + int(second) * 1000


def said(offset: int, append: str, event: str, device: str = "a", value: float = 1.0) -> Message:
    return Message(offset, at(append), at(event), device, (("t", value),))


WINDOW = [said(0, "0:01", "0:00"), said(1, "0:20", "0:20"), said(2, "1:05", "0:58")]
BEYOND = said(3, "1:10", "1:10")


def closings(records: list[Record], rules: Rules) -> list[int]:
    """After how many records something first closed, and what."""
    for count in range(1, len(records) + 1):
        closed = answer(run(rules, Log(tuple(records[:count]), 0, count))).closed
        if closed:
            return [count, *closed]
    return []


def test_a_tick_past_the_boundary_closes_the_window():
    """Everything received before 12:01:10 is in the log, so 12:00 is complete; a millisecond less is not enough."""
    rules = Rules(workers=("ingest-0",))
    assert closings([*WINDOW, Tick(3, at("1:11"), "ingest-0", at("1:11"))], rules) == [4, at("1:00")]
    assert closings([*WINDOW, Tick(3, at("1:10"), "ingest-0", at("1:10"))], rules) == [4, at("1:00")]
    assert closings([*WINDOW, Tick(3, at("1:10"), "ingest-0", at("1:10") - 1)], rules) == []


def test_without_ticks_the_window_closes_when_it_has_been_quiet():
    """Ten seconds after its last reading, and after the first one past the boundary, were appended; not 9."""
    assert closings([*WINDOW, BEYOND, said(4, "1:19", "1:19")], Rules()) == []
    assert closings([*WINDOW, BEYOND, said(4, "1:20", "1:20")], Rules()) == [5, at("1:00")]
    lasting = [*WINDOW, BEYOND, said(4, "1:12", "0:59")]
    assert closings([*lasting, said(5, "1:21", "1:21")], Rules()) == []
    assert closings([*lasting, said(5, "1:22", "1:22")], Rules()) == [6, at("1:00")]


def test_quiet_closes_nothing_while_no_reading_is_at_or_past_the_boundary():
    """All is quiet for hours, but nobody says that time went on."""
    assert closings([*WINDOW, said(3, "59:00", "1:09")], Rules()) == []


def test_patience_ends_what_a_worker_that_is_down_holds_up():
    """A window whose readings keep coming closes 300 s after the first reading past its boundary."""
    coming = [said(4 + i, f"{1 + i // 6}:{10 + i % 6 * 8}", "0:59") for i in range(40)]
    closed_after, end = closings([*WINDOW, BEYOND, *coming], Rules())
    assert end == at("1:00")
    assert coming[closed_after - 5].append - BEYOND.append >= 300_000
    assert coming[closed_after - 6].append - BEYOND.append < 300_000


def test_an_empty_window_is_not_closed_by_quiet():
    """Nothing of 12:01 has come yet: it may all be on its way, so 12:02 being quiet closes nothing after 12:00."""
    records = [*WINDOW, said(3, "1:20", "2:05"), said(4, "1:40", "3:30"), said(5, "2:00", "3:31")]
    assert answer(run(Rules(), Log(tuple(records), 0, 6))).closed == [at("1:00")]


def test_a_reading_repeated_after_its_window_closed_in_the_same_slice_is_late():
    """Lateness is a matter of the record, not of the slice."""
    records = [*WINDOW, BEYOND, said(4, "1:20", "1:20"), WINDOW[1]._replace(offset=5, append=at("1:21"))]
    outcome = run(Rules(), Log(tuple(records), 0, 6))[0]
    assert outcome.rollups["count"].to_list() == [3]
    assert outcome.late.rows(named=True) == [
        {
            "offset": 5,
            "append_time": at("1:21"),
            "event_time": at("0:20"),
            "bucket": NOON,
            "device_id": "a",
            "metric": "t",
            "value": 1.0,
        }
    ]


def test_a_message_refused_in_part_and_then_by_its_time_is_refused_once_and_whole():
    """Its payload and the refused names stay with it, for it is dead-lettered once."""
    part = slice_of(Log((said(0, "0:00", "9:00"),), 0, 1), 0, 1)
    partly = Refused(0, at("0:00"), "not_a_number", "humidity", b"payload", whole=False)
    part = LogSlice(0, 0, 1, part.messages, part.ticks, [partly])
    outcome = Windows(WindowSettings(), Progress.begin(0)).feed(part)
    (refused,) = outcome.refused
    assert (refused.reason, refused.whole, refused.payload) == ("timestamp_in_future", True, b"payload")
    assert "not_a_number: humidity" in refused.detail
    assert (outcome.counts.refused, outcome.counts.messages, outcome.counts.unexplained) == (1, 0, 0)


def test_a_claim_opens_the_windows_as_its_progress_does():
    """The dataflow hands over what the source sent."""
    claim = Claim("minute_rollups", "raw.events", 0, 7, "id", Progress.begin(3))
    outcome = Windows(WindowSettings(), claim).feed(slice_of(Log((), 3, 9), 3, 9))
    assert (outcome.progress.position, outcome.progress.resume, outcome.counts.gaps) == (9, 9, 6)


def test_a_slice_that_does_not_follow_is_a_bug():
    """A hole in the log would be readings lost without a word."""
    with pytest.raises(AssertionError, match="expected the slice from offset 3, got 4"):
        Windows(WindowSettings(), Progress.begin(3)).feed(slice_of(Log((), 4, 9), 4, 9))


def test_a_full_buffer_stops_the_flow_and_says_what_to_change():
    """Memory is bounded by a setting, and reaching the bound names it."""
    windows = Windows(WindowSettings(buffer_rows_max=2), Progress.begin(0))
    with pytest.raises(OperatorError, match=r"3 readings, more than windows\.buffer_rows_max = 2"):
        windows.feed(slice_of(Log(tuple(WINDOW), 0, 3), 0, 3))


@pytest.mark.parametrize("secs", [1, 60, 300, 3_600, 86_400])
def test_window_length_is_a_setting(secs: int):
    """Any divisor of a day: the rows are a group by of that length."""
    length = secs * 1000
    rules = Rules(length=length, workers=("ingest-0",))
    records = [Message(i, NOON + i * 400, NOON + i * 400, "a", (("t", float(i)),)) for i in range(50)]
    tick = Tick(50, NOON + 3 * length + 60_000, "ingest-0", NOON + 3 * length + 60_000)
    rows = answer(run(rules, Log((*records, tick), 0, 51))).rollups
    assert {row[0] for row in rows} == {m.event // length * length for m in records}
    assert sum(row[3] for row in rows) == 50


def test_another_length_does_not_take_over_windows_of_this_one():
    """What has closed at 12:01 is no end of an hour: the operator is told to use another flow name."""
    with pytest.raises(OperatorError, match=r"another flow\.name"):
        Windows(WindowSettings(length_secs=3600), Progress(5, 5, 0, closed_until=at("1:00")))


@pytest.mark.parametrize("chunks", [2, 3])
def test_the_chunks_of_a_frame_are_invisible(chunks: int):
    """A frame of many pieces, or one cut out of a larger one, is read like a whole one."""
    records = tuple(
        Message(i, NOON + i, NOON + i // 2, "ab"[i % 2], (("t", float(i)), ("humidity_percent", 1.0))[: 1 + i % 2])
        for i in range(12)
    )
    whole = slice_of(Log(records, 0, 12), 0, 12)
    pieces = pl.concat([whole.messages[i::chunks] for i in range(chunks)], rechunk=False).sort("offset")
    cut = pl.concat([whole.messages, whole.messages]).slice(12, 12)
    after = [Message(12 + i, NOON + 10**6 + i * 10_000, NOON + 10**6, "a", (("t", 0.0),)) for i in range(2)]
    end = slice_of(Log(tuple(after), 12, 14), 12, 14)
    found = []
    for frame in (whole.messages, pieces, cut, pl.concat([whole.messages[:5], whole.messages[5:]], rechunk=False)):
        windows = Windows(WindowSettings(), Progress.begin(0))
        windows.feed(LogSlice(0, 0, 12, frame, whole.ticks))
        found.append(exact(windows.feed(end).rollups))
    assert all(rows == found[0] for rows in found)
    assert len(found[0]) == 3


def test_it_runs_on_a_plain_data_frame():
    """A notebook needs no more than a frame of readings, numbered, and no service at all."""
    count = 1_000
    times = NOON + np.arange(count) * 500
    frame = pl.DataFrame(
        {
            "offset": np.arange(count),
            "append_time": times,
            "event_time": times,
            "device_id": ["boiler-7"] * count,
            "metric": [["temperature"]] * count,
            "value": [[float(i % 10)] for i in range(count)],
        },
        schema=MESSAGES,
    )
    outcome = Windows(WindowSettings(), Progress.begin(0)).feed(LogSlice(0, 0, count, frame, TICKS.to_frame()))
    assert outcome.rollups["count"].to_list() == [120] * len(outcome.closed)
    assert outcome.rollups["mean"].to_list() == [4.5] * len(outcome.closed)
    assert len(outcome.closed) > 5
