"""The laws of the engine of flags, against an oracle that shares no code with it."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from schemas import snapshot_bytes
from schemas.flags import Judged
from tests.flag_engine import BEGIN, end_of, engine, feed, still_open
from tests.flag_logs import START, WATCHES, Record, logs
from tests.flag_oracle import Closed, Oracle, Told

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
EXAMPLES = settings(max_examples=settings.default.max_examples // 5, deadline=None)


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
