"""The laws of the engine of flags, against an oracle that shares no code with it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from dataflows.anomalies.flagging import Flags
from dataflows.anomalies.watch import Watch
from dataflows.decoding.rollup_log import decode_rollups
from schemas import snapshot_bytes
from schemas.flags import Episode, Flag, Judged, Snapshot
from schemas.progress import Claim, Progress
from tests.flag_logs import START, WATCHES, Record, batch, changed, logs
from tests.flag_oracle import MINUTE, Closed, Oracle, Rolled, Told

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
EXAMPLES = settings(max_examples=settings.default.max_examples // 5, deadline=None)
BEGIN = Progress.begin(0)


def engine(
    progress: Progress = BEGIN, snapshot: Snapshot | None = None, told: Any = None, watches: Sequence[Watch] = WATCHES
) -> Flags:
    return Flags(watches, MINUTE, Claim("flags", "aggregates.minute", 0, 1, "id", progress), snapshot, told)


def feed(flags: Flags, records: Sequence[Record], start: int, end: int) -> Judged:
    return flags.feed(decode_rollups(batch(records, start, end), MINUTE))


def end_of(records: Sequence[Record]) -> int:
    return records[-1].offset + 1


def told(judged: Judged) -> list[Told]:
    """What was told, in the oracle's words."""
    found: list[Told] = [
        ("flag", f.detector, f.device_id, f.metric, f.bucket, f.revision, f.episode_id) for f in judged.flags
    ]
    for one in judged.episodes:
        who = (one.flag.detector, one.flag.device_id, one.flag.metric, one.flag.bucket)
        found.append((one.phase, *who) if one.closed is None else (one.phase, *who, one.closed, one.cause))
    return found


def by_oracle(records: Sequence[Record]) -> list[Told]:
    """What the oracle says; episodes named as the engine names them."""
    from dataflows.anomalies.judge import episode_id

    oracle = Oracle(WATCHES)
    found = []
    for record in records:
        for phase, watch, device, metric, *rest in oracle.take(record):
            if phase == "flag" and rest[-1] is not None:
                rest[-1] = episode_id(watch, device, metric, rest[-1])
            found.append((phase, watch, device, metric, *rest))
    return found


@EXAMPLES
@given(records=logs())
def test_the_engine_says_what_the_oracle_says(records: list[Record]) -> None:
    """Every flag, opening and closing of a whole log, and none more."""
    assert sorted(by_oracle(records), key=repr) == sorted(told(feed(engine(), records, 0, end_of(records))), key=repr)


@EXAMPLES
@given(records=logs(), cuts=st.lists(st.floats(0, 1), max_size=12))
def test_cuts_are_invisible(records: list[Record], cuts: list[float]) -> None:
    """However the log is cut into batches, empty ones among them: the same flags in the same order, the same state."""
    whole = engine()
    once = feed(whole, records, 0, end_of(records))
    piecewise = engine()
    parts = [feed(piecewise, records, start, end) for start, end in stretches(records, cuts)]
    assert once.flags == [flag for part in parts for flag in part.flags]
    assert once.episodes == [one for part in parts for one in part.episodes]
    assert once.counts == sum((part.counts for part in parts[1:]), parts[0].counts)
    assert once.progress == parts[-1].progress
    assert snapshot_bytes.encode(whole.snapshot()) == snapshot_bytes.encode(piecewise.snapshot())


@EXAMPLES
@given(data=st.data(), records=logs(), cuts=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_crashes_are_invisible(data: st.DataObject, records: list[Record], cuts: list[float]) -> None:
    """Killed after any batch, with or without a snapshot since, and resumed from the one on record: what follows is
    told as if nothing had happened, nothing is told twice, and the state ends the same."""
    undisturbed = engine()
    once = feed(undisturbed, records, 0, end_of(records))
    flags, episodes = [], []
    progress, kept, at, begin = BEGIN, None, engine(), 0
    for _, end in stretches(records, cuts):
        judged = feed(at, records, begin, end)
        if data.draw(st.booleans()) and judged.progress.position > progress.position:
            judged = at.with_snapshot(judged)
            assert judged.snapshot is not None
            kept = snapshot_bytes.encode(judged.snapshot)
        flags += judged.flags
        episodes += judged.episodes
        progress, begin = judged.progress, end
        if data.draw(st.booleans()):
            begin = progress.resume
            at = engine(progress, kept and snapshot_bytes.decode(progress.resume, kept), still_open(episodes))
            if data.draw(st.booleans()):  # the rebuilding may end there, or run into what is new
                again = feed(at, records, begin, end)
                assert ([], [], 0) == (again.flags, again.episodes, again.counts.offsets)
                assert progress == again.progress
                begin = end
    assert once.flags == flags
    assert once.episodes == episodes
    feed(at, records, begin, end_of(records))  # a crash at the very end leaves it to rebuild
    last, first = at.snapshot(), undisturbed.snapshot()
    assert snapshot_bytes.encode(first) == snapshot_bytes.encode(last)


@EXAMPLES
@given(records=logs())
def test_an_anomaly_opens_once_and_closes_once(records: list[Record]) -> None:
    """An id opens once and closes at most once, after it opened; flags that carry it lie within."""
    judged = feed(engine(), records, 0, end_of(records))
    opened = {one.episode_id: one for one in judged.episodes if one.phase == "open"}
    closed = {one.episode_id: one for one in judged.episodes if one.phase == "close"}
    phases = Counter((one.episode_id, one.phase) for one in judged.episodes)
    assert set(phases.values()) <= {1}
    assert set(closed) <= set(opened)
    for named, one in closed.items():
        assert (one.flag.bucket, one.closed or 0) > (opened[named].flag.bucket, opened[named].flag.bucket)
    for flag in judged.flags:
        if flag.episode_id is not None:
            one = closed.get(flag.episode_id, opened[flag.episode_id])
            assert opened[flag.episode_id].flag.bucket <= flag.bucket < (one.closed or flag.bucket + 1)


@EXAMPLES
@given(records=logs(), again=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4))
def test_what_comes_again_changes_nothing(records: list[Record], again: list[tuple[float, float]]) -> None:
    """Stretches of the log that are appended a second time, as after a crash of who wrote them."""
    once = feed(engine(), records, 0, end_of(records))
    longer = list(records)
    for where, length in again:
        at = 1 + int(where * (len(longer) - 1))
        # As a writer that resumes does: it goes back, and then on with what comes next.
        longer[at:at] = longer[max(0, at - 1 - int(length * 30)) : at]
    numbered = [one._replace(offset=offset) for offset, one in enumerate(longer)]
    twice = feed(engine(), numbered, 0, end_of(numbered))
    assert once.flags == twice.flags
    assert once.episodes == twice.episodes


@EXAMPLES
@given(records=logs())
def test_revisions_page_nobody(records: list[Record]) -> None:
    """Without its late revisions a log opens and closes the same episodes: they change flags, and teach nothing."""
    late: set[int] = set()
    closed_until = START
    for one in records:
        if isinstance(one, Closed):
            closed_until = max(closed_until, one.end)
        elif one.revision and one.bucket < closed_until:
            late.add(one.offset)
    without = [one for one in records if one.offset not in late]
    told_with = feed(engine(), records, 0, end_of(records)).episodes
    assert told_with == feed(engine(), without, 0, end_of(records)).episodes


def stretches(records: Sequence[Record], cuts: Sequence[float]) -> list[tuple[int, int]]:
    """[0, end) cut at shares of its length; empty stretches are kept."""
    end = end_of(records)
    places = [0, *sorted(int(cut * end) for cut in cuts), end]
    return list(pairwise(places))


def still_open(episodes: Sequence[Episode]) -> dict[str, Episode]:
    """What stands open on record, as ``connectors.timescale_flags.recall`` reads it back."""
    found: dict[str, Episode] = {}
    for one in episodes:
        if one.closed is None:
            bare = one.flag._replace(value=None, expected=None, lower=None, upper=None)
            found[one.episode_id] = one._replace(flag=bare)
        else:
            found.pop(one.episode_id, None)
    return found


HAZARDS = {
    **{f"{watch.name} {phase}s": (phase, watch.name) for watch in WATCHES for phase in ("open", "close")},
    "the pipeline opens": ("open", "pipeline"),
    "the pipeline closes": ("close", "pipeline"),
}


@pytest.mark.parametrize("hazard", HAZARDS.values(), ids=HAZARDS)
def test_each_hazard_does_occur(hazard: tuple[str, str]) -> None:
    """The logs open and close every kind of episode; otherwise the laws above would say little."""
    find(
        logs(),
        lambda records: any(one[:2] == hazard for one in by_oracle(records)),
        settings=settings(EXAMPLES, phases=[Phase.generate], max_examples=200),
    )


def test_late_revisions_withdraw_flags_and_make_them() -> None:
    """A revised minute is judged by the band of then: into it the score is 0, out of it the limit's."""
    rows = [Rolled(nth, START + nth // 2 * MINUTE, "boiler", "t", 9.0 if nth == 8 else 1.0) for nth in range(0, 12, 2)]
    records: list[Record] = []
    for row in rows:
        records += [row, Closed(row.offset + 1, row.bucket + MINUTE)]
    hot = [replace(WATCHES[0], for_mins=1)]
    late = [
        Rolled(12, START + 4 * MINUTE, "boiler", "t", 2.0, revision=1),
        Rolled(13, START + 3 * MINUTE, "boiler", "t", 9.5, revision=2),
        Rolled(14, START + 3 * MINUTE, "boiler", "t", 99.0, revision=1),
    ]
    flags = feed(engine(watches=hot), [*records, *late], 0, 15).flags
    assert [(f.bucket, f.value, f.revision, f.score > 0) for f in flags] == [
        (START + 4 * MINUTE, 9.0, 0, True),
        (START + 4 * MINUTE, 2.0, 1, False),
        (START + 3 * MINUTE, 9.5, 2, True),
    ]
    assert flags[1].episode_id == flags[0].episode_id
    assert flags[2].episode_id is None


def test_minutes_older_than_a_quarter_of_an_hour_are_not_judged_again() -> None:
    """Their bands are gone; a revision of the sixteenth minute says nothing, of the fourteenth it does."""
    hot = [replace(WATCHES[0], for_mins=1)]
    records: list[Record] = []
    for nth in range(20):
        records += [
            Rolled(2 * nth, START + nth * MINUTE, "boiler", "t", 1.0),
            Closed(2 * nth + 1, START + (nth + 1) * MINUTE),
        ]
    late = [Rolled(40 + nth, START + nth * MINUTE, "boiler", "t", 50.0, revision=1) for nth in range(20)]
    found = [flag.bucket for flag in feed(engine(watches=hot), [*records, *late], 0, 60).flags]
    assert found == [START + nth * MINUTE for nth in range(5, 20)]


def test_a_rule_that_changes_begins_anew_and_the_others_go_on() -> None:
    """What was open of the changed rule is closed with the next window, told once; the learned state of rules whose
    detector stayed is kept."""
    records: list[Record] = []
    for nth in range(30):
        value = 9.0 if nth >= 20 else 1.0
        offset = 2 * nth
        records += [
            Rolled(offset, START + nth * MINUTE, "boiler", "t", value),
            Closed(offset + 1, START + (nth + 1) * MINUTE),
        ]
    first = engine()
    judged = first.with_snapshot(feed(first, records, 0, 50))
    assert {one.flag.detector for one in judged.episodes if one.phase == "open"} == {"hot", "jump", "few"}
    other = changed(changed(WATCHES, "hot", params_version="2", flag_at=0.9), "jump", severity="critical")
    second = engine(judged.progress, judged.snapshot, still_open(judged.episodes), other)
    after = feed(second, records, 50, 60)
    closes = [(one.flag.detector, one.cause) for one in after.episodes]
    assert closes == [("hot", "settings")]
    kept = second.snapshot().arrays
    assert kept["jump/state/rows"].tolist() == [30]
    assert feed(second, records, 60, 60).episodes == []


def test_an_episode_that_the_rebuilding_does_not_bring_back_is_closed() -> None:
    """Opened under other rules after the last snapshot: it stands open on record, and no state knows it."""
    records: list[Record] = []
    for nth in range(6):
        records += [
            Rolled(2 * nth, START + nth * MINUTE, "boiler", "t", 9.0),
            Closed(2 * nth + 1, START + (nth + 1) * MINUTE),
        ]
    judged = feed(engine(), records, 0, 8)
    orphans = still_open(judged.episodes)
    assert "hot" in {one.flag.detector for one in orphans.values()}
    rules = [watch for watch in WATCHES if watch.name != "hot"]
    resumed = engine(judged.progress, None, orphans, rules)
    feed(resumed, records, 0, 8)
    after = feed(resumed, records, 8, 12)
    assert [(one.flag.detector, one.cause, one.closed) for one in after.episodes] == [
        ("hot", "settings", START + 5 * MINUTE)
    ]


def test_long_gone_series_are_forgotten_and_their_episodes_closed() -> None:
    """After an hour of silence here; the others are judged as if those had never been there."""
    hour = 60
    records: list[Record] = []
    offset = 0
    for nth in range(3 * hour):
        there = [("boiler", 1.0)] + ([("pump", 9.0), ("a/b", 2.0)] if nth < 10 else [])
        for device, value in there:
            records.append(Rolled(offset, START + nth * MINUTE, device, "t", value + nth % 3))
            offset += 1
        records.append(Closed(offset, START + (nth + 1) * MINUTE))
        offset += 1
    alone = [one for one in records if isinstance(one, Closed) or one.device == "boiler"]
    watches = [replace(watch, outage_share=None, close_after_mins=600) for watch in WATCHES]
    claim = Claim("flags", "t", 0, 1, "id", BEGIN)
    forgetful = Flags(watches, MINUTE, claim, forget_after_ms=hour * MINUTE)
    judged = feed(forgetful, records, 0, offset)
    assert ("hot", "pump", "forgotten") in {(e.flag.detector, e.flag.device_id, e.cause) for e in judged.episodes}
    only = Flags(watches, MINUTE, claim)
    apart = feed(only, alone, 0, offset)
    mine = [flag for flag in judged.flags if flag.device_id == "boiler"]
    assert mine == list(apart.flags)
    states = forgetful.snapshot()
    assert states.facts["device_id"] == ["boiler"]
    assert {name: array.shape[-1] for name, array in states.arrays.items() if "/state/" in name} == {
        name: 1 for name in states.arrays if "/state/" in name
    }
    np.testing.assert_array_equal(states.arrays["jump/state/past"], only.snapshot().arrays["jump/state/past"])


def test_above_the_bound_those_quiet_longest_are_forgotten() -> None:
    """A flood of names that come once leaves the series that go on."""
    records: list[Record] = []
    offset = 0
    for nth in range(50):
        for device in ("boiler", f"flood-{nth}"):
            records.append(Rolled(offset, START + nth * MINUTE, device, "t", 1.0))
            offset += 1
        records.append(Closed(offset, START + (nth + 1) * MINUTE))
        offset += 1
    flags = Flags(WATCHES, MINUTE, Claim("flags", "t", 0, 1, "id", BEGIN), series_max=4)
    feed(flags, records, 0, offset)
    assert sorted(flags.snapshot().facts["device_id"]) == ["boiler", "flood-47", "flood-48", "flood-49"]


def test_flags_explain_themselves() -> None:
    """Value, band, score, rule, its version and severity; what has no number says none."""
    records: list[Record] = [Rolled(0, START, "boiler", "t", 9.0), Closed(1, START + MINUTE)]
    (flag,) = feed(engine(watches=[replace(WATCHES[0], for_mins=1)]), records, 0, 2).flags
    assert isinstance(flag, Flag)
    assert (flag.value, flag.expected, flag.lower, flag.upper) == (9.0, None, None, 8.0)
    assert 0.5 <= flag.score <= 1
    assert (flag.detector, flag.severity, flag.params_version) == ("hot", "warning", "1")
