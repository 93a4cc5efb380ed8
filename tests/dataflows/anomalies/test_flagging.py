"""The engine of flags, case by case: revisions, rules that change, series that are gone, what a flag says."""

from dataclasses import replace

import numpy as np

from dataflows.anomalies.flagging import Flags
from schemas.flags import Flag
from schemas.progress import Claim
from tests.flag_engine import BEGIN, engine, feed, still_open
from tests.flag_logs import START, WATCHES, Record, changed
from tests.flag_oracle import MINUTE, Closed, Rolled


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
