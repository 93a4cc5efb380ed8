"""Late readings that wait for the archive when a flow goes on in another log, whose offsets begin anew."""

import polars as pl
import psycopg
import pytest

from connectors.timescale_late import Archive, LateReadings
from infra.forfeit.books import hold
from infra.forfeit.decision import Decision, Wrong
from schemas.frames import LATE
from schemas.settings import DatabaseSettings, Settings
from tests.connectors.timescale_tables import TOPIC, claimed, rows, store

pytestmark = pytest.mark.embedded
MINUTE_MS = 60_000
EVENT_MS = 1_763_700_000_000
WAITING = """
    insert into late_waiting (flow, topic, partition, "offset", metric, device_id, event_time, value, seen_at)
    values ('minute_rollups', %s, 0, 5, 't', 'a', now(), 1.0, now())
"""


@pytest.mark.parametrize(
    "decision",
    [Decision(Wrong.OTHER_TOPIC, 0, 0, same_log=False), Decision(Wrong.ENDS_EARLY, 3, 3, same_log=True)],
    ids=["another topic", "a log that lost its end"],
)
def test_what_waits_does_not_meet_the_same_offset_of_the_log_that_follows(
    migrated_url: str, decision: Decision
) -> None:
    """It waits no longer, and counts: of its log the archive will have nothing more."""
    rollups = store(migrated_url)
    claimed(rollups)
    claimed(store(migrated_url, "raw_archive", output="raw_telemetry", shape="every reading"))
    with psycopg.connect(migrated_url) as connection:
        connection.execute("update progress set position = 10, resume = 10 where flow = 'minute_rollups'")
        connection.execute(WAITING, [TOPIC])
    own = Settings(database=DatabaseSettings(conninfo=migrated_url))
    hold(own, "minute_rollups", TOPIC, "topic-2", {0: 0}, rollups.standing(TOPIC), {0: (decision, 0)})
    (claim,) = rollups.claim(TOPIC, "topic-2", 1, {0: 0}).values()
    bucket = EVENT_MS // MINUTE_MS * MINUTE_MS
    told = {"offset": 5, "append_time": EVENT_MS, "event_time": EVENT_MS, "device_id": "a", "metric": "t"}
    late = pl.DataFrame([told | {"value": 2.0, "bucket": bucket}], schema=LATE)
    with psycopg.connect(migrated_url) as connection:
        settled = LateReadings(claim, MINUTE_MS, Archive("raw_archive", "raw_telemetry")).settle(connection, late)
    assert settled.new["value"].to_list() == [1.0]
    assert (settled.decided, settled.waiting) == (1, 0)
    assert rows(migrated_url, 'select "offset" from late_waiting') == [(5,)]
