"""What a fleet says is a function of its plan alone, and each fault it is asked for does occur."""

import itertools
import json
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.fleet.faults import FAST_CLOCK_MS
from infra.fleet.payloads import BROKEN
from infra.fleet.plan import ALL, RATES, Plan, parse_faults
from infra.fleet.signals import METRICS, noise, speaking_times, uniform
from infra.fleet.stream import Message, Stream
from schemas.errors import OperatorError
from schemas.telemetry_pb2 import Telemetry

START_MS = 1_763_700_000_000


def said(plan: Plan, cuts: list[int] | None = None) -> list[Message]:
    """All that a plan with an end says, its time cut at some instants, in ms after its beginning."""
    stream, messages = Stream(plan), []
    assert plan.end_ms is not None
    for until in [*sorted(plan.first_ms + cut for cut in cuts or []), plan.end_ms]:
        while stream.at_ms < until:
            messages += stream.advance(until)
    return messages


def a_plan(**changes) -> Plan:
    known = {
        "start_ms": START_MS,
        "for_secs": 900,
        "devices_per_user": 12,
        "rate": 12,
        "faults": parse_faults("all,repeat"),
    }
    return Plan(**known | changes)


@given(
    cuts=st.lists(st.floats(0, 1), max_size=20),
    seed=st.integers(0, 2**63),
    at=st.sampled_from([(0.3, 60), (7, 60), (950.7, 2)]),
)
@settings(deadline=None, max_examples=25)
def test_however_time_is_cut_the_messages_are_the_same(cuts, seed, at):
    """Equal plans give equal messages in equal order, asked for in one stretch or in many."""
    rate, secs = at
    plan = a_plan(seed=seed, rate=rate, for_secs=secs, history_secs=secs)
    assert said(plan) == said(plan, [int(2_000 * secs * cut) for cut in cuts])


def test_messages_come_in_the_order_they_are_due():
    """No message is due before the one ahead of it, and none before its reading was taken."""
    messages = said(a_plan())
    assert [m.due_ms for m in messages] == sorted(m.due_ms for m in messages)
    assert all(m.due_ms >= m.event_ms for m in messages)


def test_another_seed_says_something_else():
    """The seed is not ignored."""
    assert said(a_plan(seed=1)) != said(a_plan(seed=2))


@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_every_fault_occurs_where_all_are_asked_for(form):
    """A quarter of an hour of a hundred devices holds each fault, and each kind of broken payload."""
    faults = Counter(
        kind for m in said(a_plan(devices_per_user=100, rate=100, format=form)) for kind in m.fault.split("+")
    )
    kinds = {f"broken:{kind}" for kind in BROKEN[form]}
    assert kinds | set(RATES) - {"broken", "silence"} | {""} == set(faults)


def test_no_fault_occurs_where_none_is_asked_for():
    """Every device says one thing each interval, once."""
    messages = said(a_plan(faults={}))
    assert {m.fault for m in messages} == {""}
    assert len({(m.device, m.event_ms) for m in messages}) == len(messages) == 12 * 900


def test_a_fault_alone_is_the_only_one():
    """Asking for one fault brings no other."""
    for name in RATES:
        kinds = {m.fault.partition(":")[0] for m in said(a_plan(faults={name: RATES[name]}))}
        assert kinds <= {"", name}


def test_a_duplicate_is_the_same_payload_while_its_minute_is_open():
    """The second copy comes within the allowed lateness, at once for about half of them."""
    plan = a_plan(faults={"duplicate": 0.2})
    messages = said(plan)
    copies = [m for m in messages if m.copy]
    firsts = {(m.device, m.event_ms): m for m in messages if not m.copy}
    delays = [copy.due_ms - firsts[copy.device, copy.event_ms].due_ms for copy in copies]
    assert all(copy.payload == firsts[copy.device, copy.event_ms].payload for copy in copies)
    assert max(delays) <= plan.lateness_secs * 1_000
    assert 0.4 < delays.count(0) / len(delays) < 0.6


def test_disorder_stays_within_the_allowed_lateness_and_late_is_beyond_its_minute():
    """A disordered reading is late in nobody's eyes; a late one is sent after its window and the lateness ended."""
    plan = a_plan(faults={"disorder": 0.2, "late": 0.2})
    messages = said(plan)
    disordered = [m.due_ms - m.event_ms for m in messages if m.fault == "disorder"]
    assert disordered
    assert max(disordered) < plan.lateness_secs * 1_000
    late = [m for m in messages if m.fault == "late"]
    assert late
    for m in late:
        assert m.due_ms > m.event_ms // 60_000 * 60_000 + 60_000 + plan.lateness_secs * 1_000
    assert any(m.copy for m in late), "some late readings come twice"


def test_one_clock_is_four_minutes_fast():
    """One device's payloads say four minutes more than the truth; everybody else's say the truth."""
    wrong = set()
    for m in said(a_plan(faults={"fast-clock": 0})):
        ahead_ms = json.loads(m.payload)["ts"] - m.event_ms
        assert ahead_ms == (FAST_CLOCK_MS if m.fault == "fast-clock" else 0)
        wrong |= {m.device} if ahead_ms else set()
    assert len(wrong) == 1


def test_a_stuck_sensor_repeats_its_values_for_a_minute_or_more():
    """The same values sixty times or more, under sixty event times."""
    runs, latest = Counter(), {}
    for m in said(a_plan(faults={"stuck": 0.5}, for_secs=1_800)):
        metrics = json.loads(m.payload)["metrics"]
        if m.fault == "stuck":
            runs[m.device, str(metrics)] += 1
        latest[m.device] = metrics
    assert runs
    assert max(runs.values()) >= 60


def test_a_silent_device_says_nothing_for_a_minute_or_more():
    """Gaps of one to four minutes, and otherwise the usual interval."""
    plan = a_plan(faults={"silence": 0.5}, for_secs=1_800)
    times = {}
    for m in said(plan):
        times.setdefault(m.device, []).append(m.event_ms)
    gaps = [after - before for each in times.values() for before, after in itertools.pairwise(each)]
    assert 60_000 <= max(gaps) <= 540_000  # two slots may meet
    assert {gap for gap in gaps if gap < 10_000} == {1_000}


def test_a_spike_is_one_value_far_from_its_neighbours():
    """One metric of one message is far above what it would have been; all else is equal."""
    plain, spiked = said(a_plan(faults={})), said(a_plan(faults={"spike": 0.05}))
    changed = 0
    for before, after in zip(plain, spiked, strict=True):
        one, other = json.loads(before.payload)["metrics"], json.loads(after.payload)["metrics"]
        differing = [name for name in one if one[name] != other[name]]
        assert len(differing) == (after.fault == "spike")
        changed += len(differing)
        assert all(other[name] > one[name] + 20 for name in differing)
    assert changed


def test_both_formats_carry_the_same_readings():
    """JSON and protobuf of one plan differ in bytes only; running is a boolean in the one and 0 or 1 in the other."""
    plans = [a_plan(faults={}, format=form, for_secs=30) for form in ("json", "protobuf")]
    for one, other in zip(*map(said, plans), strict=True):
        body, message = json.loads(one.payload), Telemetry.FromString(other.payload)
        assert (one.topic, body["device_id"], body["ts"]) == (other.topic, message.device_id, message.ts)
        assert body["metrics"] == dict(message.metrics)
        assert set(body["metrics"]) == set(METRICS)
        assert isinstance(body["metrics"]["running"], bool)
        assert all(math.isfinite(value) for value in message.metrics.values())


def test_users_and_devices_have_topics_of_their_own():
    """Where the topic names the user the id is the device's own; where it does not, the id is unique in the fleet."""
    plan = a_plan(users=3, devices_per_user=8, topic="users/{user}/devices/{device_id}/telemetry")
    assert plan.names()[9] == ("users/user-2/devices/pump-1/telemetry", "pump-1")
    assert len({topic for topic, _ in plan.names()}) == 24
    assert len({device_id for _, device_id in a_plan(users=3, devices_per_user=8).names()}) == 24


@given(
    start_us=st.integers(10**12, 2 * 10**12),
    lengths=st.lists(st.integers(1, 5_000), min_size=2, max_size=5),
    interval_ms=st.sampled_from([0.0004, 0.7, 3.3333, 1_000, 90_000]),
)
@settings(deadline=None, max_examples=50)
def test_adjoining_stretches_share_no_reading_and_miss_none(start_us, lengths, interval_ms):
    """Readings of [a, b) and [b, c) are those of [a, c), also where a device speaks several times a millisecond."""
    lengths = [max(1, length // 100) for length in lengths] if interval_ms < 0.01 else lengths
    edges = [start_us + sum(lengths[:i]) for i in range(len(lengths) + 1)]
    parts = [speaking_times(3, 7, interval_ms, a, b) for a, b in itertools.pairwise(edges)]
    whole = speaking_times(3, 7, interval_ms, edges[0], edges[-1])
    together = sorted((d, t) for device, at in parts for d, t in zip(device.tolist(), at.tolist(), strict=True))
    assert together == list(zip(whole[0].tolist(), whole[1].tolist(), strict=True))
    for (_, at), a, b in zip(parts, edges, edges[1:], strict=False):
        assert not at.size or (a <= at.min() and at.max() < b)


def test_draws_are_uniform_and_noise_is_bell_shaped():
    """Ten thousand draws of neighbouring devices and instants have the mean and deviation they should."""
    device, at = speaking_times(100, 3, 1_000, START_MS, START_MS + 100_000)
    draws, bell = uniform(3, "x", device, at), noise(3, "x", device, at)
    assert abs(draws.mean() - 0.5) < 0.02
    assert abs(draws.std() - 12**-0.5) < 0.01
    assert abs(bell.mean()) < 0.05
    assert abs(bell.std() - 1) < 0.03
    assert draws.min() >= 0
    assert draws.max() < 1


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("none", {}),
        ("late", {"late": RATES["late"]}),
        ("late=0.5, broken", {"late": 0.5, "broken": RATES["broken"]}),
        ("all", {name: RATES[name] for name in ALL}),
        ("all,repeat,late=0", RATES | {"late": 0.0}),
    ],
)
def test_faults_are_read_as_people_write_them(text, faults):
    """Names, with or without a share; all and none; the last word counts."""
    assert parse_faults(text) == faults


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lat", "did you mean late"),
        ("late=2", "between 0 and 1"),
        ("late=x", "0.05"),
        ("late=0.9,broken=0.9", "add up"),
    ],
)
def test_faults_that_make_no_sense_are_refused_in_words(text, said):
    """Unknown names get the nearest known one; shares are between 0 and 1 and add up to no more."""
    with pytest.raises(OperatorError, match=said):
        parse_faults(text)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"topic": "telemetry"}, "device_id"),
        ({"topic": "a/{tenant}/{device_id}"}, "tenant"),
        ({"topic": "+/{device_id}"}, "wildcard"),
        ({"rate": 0.0}, "--rate"),
        ({"users": 0}, "at least one"),
    ],
)
def test_plans_that_make_no_sense_are_refused_in_words(changes, said):
    """A topic that names no device, or cannot be published to; no devices; no rate."""
    with pytest.raises(OperatorError, match=said):
        a_plan(**changes)
