"""What a person sees who starts the demo: its fault is flagged by the statistical detector within minutes."""

import json
from collections import defaultdict

import polars as pl
import pytest

from dataflows.anomalies.judge import Judge
from dataflows.anomalies.rules import watches
from infra.demo.topology import BEFORE_SECS, RULES
from infra.fleet.faults import SURGE_AFTER_MS, afflict
from infra.fleet.plan import Plan, parse_faults
from infra.fleet.signals import speaking_times
from infra.fleet.stream import Stream
from schemas.flags import TOLD, Episode
from schemas.rules_file import load_rules

MINUTE_MS = 60_000


def rollups(plan: Plan) -> dict[int, pl.DataFrame]:
    """What the fleet's own words come to, minute by minute; late and broken messages left out."""
    assert plan.end_ms is not None
    stream = Stream(plan)
    values: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    while stream.at_ms < plan.end_ms:
        for message in stream.advance(plan.end_ms):
            if not message.fault.startswith(("broken", "late")) and "fast-clock" not in message.fault:
                said = json.loads(message.payload)
                for metric, value in said["metrics"].items():
                    values[message.event_ms // MINUTE_MS * MINUTE_MS, said["device_id"], metric].append(value)
    rows = [
        {
            "bucket": bucket, "device_id": device, "metric": metric, "count": len(found),
            "mean": sum(found) / len(found), "m2": 0.0, "min": min(found), "max": max(found), "first": found[0],
            "last": found[-1], "first_ts": bucket, "last_ts": bucket, "revision": 0, "offset": 0,
        }
        for (bucket, device, metric), found in values.items()
    ]  # fmt: skip
    frame = pl.DataFrame(rows).select(TOLD.names()).cast(dict(TOLD))
    return {bucket: part for (bucket,), part in frame.partition_by("bucket", as_dict=True).items()}


@pytest.mark.parametrize(("seed", "start_ms"), [(1, 1_763_700_000_000), (1, 1_763_737_777_000), (7, 1_795_262_400_000)])
def test_the_demos_fault_is_flagged_by_novelty_within_two_minutes(seed: int, start_ms: int) -> None:
    """At night and by day: after the past that the demo's fleet tells, and ten minutes of history with all faults, the
    pressure that surges is news in its first or second minute; and devices that do not surge are calm meanwhile."""
    plan = Plan(
        start_ms=start_ms,
        seed=seed,
        for_secs=240,
        history_secs=600,
        before_secs=BEFORE_SECS,
        faults=parse_faults("all"),
    )
    device, at = speaking_times(plan.devices, seed, 1_000, start_ms - 600_000, start_ms + 240_000)
    surges = {plan.names()[one][1] for one in set(device[afflict(plan, device, at).surge].tolist())}
    judge = Judge(watches(load_rules(RULES).values()), MINUTE_MS)
    found: list[Episode] = []
    for bucket, frame in sorted(rollups(plan).items()):
        told = judge.close(frame, bucket + MINUTE_MS)
        found += [one for one in told if isinstance(one, Episode) and one.phase == "open"]
    live = [one.flag for one in found if one.flag.bucket >= start_ms + SURGE_AFTER_MS - MINUTE_MS]
    news = [one for one in live if (one.detector, one.metric) == ("novelty", "pressure") and one.device_id in surges]
    assert news
    assert min(one.bucket for one in news) <= start_ms + SURGE_AFTER_MS + MINUTE_MS
    assert all(one.upper is not None and one.value is not None and one.value > one.upper for one in news)
    calm = [one for one in live if one.detector == "novelty" and one.device_id not in surges]
    assert len(calm) <= 3
