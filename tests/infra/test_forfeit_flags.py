"""``anomaly_flags`` goes on where its log was given up: with what it had learned, where that still means the same."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from connectors import kafka_client, kafka_topics
from connectors.kafka import KafkaLog
from connectors.kafka_sink import Publisher
from infra.forfeit import __main__ as forfeiting
from schemas.record import Record
from tests.flag_logs import encoded
from tests.flag_oracle import MINUTE, Closed, Rolled
from tests.topology import Topology, beside, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract, pytest.mark.long]

FLOW = "anomaly_flags"
RULES = """
rules:
  - {name: too-hot, detector: threshold, above: 8, close_after_mins: 2}
"""
HOT, CALM = 9.0, 1.0


class Minutes:
    """Minutes of a device in each partition, appended to the log that flags are made of."""

    def __init__(self, flows: Topology) -> None:
        self.topic = flows.settings.output.topic
        self._settings = flows.settings.kafka
        self._next = time.time_ns() // 1_000_000 // MINUTE * MINUTE - 1_000 * MINUTE

    def append(self, value: float, minutes: int, partitions: int = 3) -> None:
        publisher = Publisher(self._settings)
        for _ in range(minutes):
            for partition in range(partitions):
                one = Rolled(0, self._next, f"d-{partition}", "t", value)
                publisher.send(Record(self.topic, encoded(one), b"d", partition=partition))
                closed = Closed(0, self._next + MINUTE)
                headers = (("closed", b"%d" % closed.end),)
                publisher.send(Record(self.topic, encoded(closed), headers=headers, partition=partition))
            self._next += MINUTE
        publisher.flush()


@pytest.fixture
def flows(tmp_path: Path, kafka_bootstrap: str, database_url: str) -> Iterator[Topology]:
    """One whose state is written seldom."""
    (tmp_path / "rules.yaml").write_text(RULES)
    with topology(tmp_path, kafka_bootstrap, database_url, "mqtt://127.0.0.1:1", flags={"alerts": False}) as made:
        yield made


def run(flows: Topology, settled: str) -> None:
    """Let the flow go on until the query answers true for it; what it says at its start is no error."""
    flows.start(FLOW)
    wait_for(lambda: flows.ask(settled) == [(True,)], settled, flows.state)
    assert flows.stop(FLOW) == 0
    balance = (
        "select bool_and(position - start = messages + ledger.ticks + refused + gaps + forfeited) "
        "from progress join ledger using (flow, topic, partition)"
    )
    assert flows.ask(balance) == [(True,)]


def read(records: int, partitions: int = 3) -> str:
    return f"select sum(position) = {records} and count(*) = {partitions} from progress"


def refused(flows: Topology, why: str) -> None:
    """A start ends with one message that names the command, and the flow in it."""
    flows.log(FLOW).unlink(missing_ok=True)
    flows.start(FLOW)
    process = flows.running.pop(FLOW)
    assert process.wait(90) == 78
    said = flows.log(FLOW).read_text()
    assert why in said
    assert f"./justw forfeit --settings FILE --flow {FLOW} --topic {flows.settings.output.topic}" in said


def forfeit(flows: Topology, capsys: pytest.CaptureFixture[str], *how: str) -> str:
    arguments = ["--settings", str(flows.settings_path), "--flow", FLOW, *how, "--yes"]
    capsys.readouterr()
    assert forfeiting.main(arguments) == 0
    return capsys.readouterr().out


def episodes(flows: Topology) -> list[tuple[object, ...]]:
    return flows.ask("select cause, count(*) from anomaly_episodes group by 1 order by 1")


def test_what_was_learned_goes_along(flows: Topology, capsys: pytest.CaptureFixture[str]) -> None:
    """Through retention before any state was written and after, and a topic made again; where partitions are added, or
    progress is gone, it begins anew. Each time one refusal, one command, and a start."""
    minutes, topic = Minutes(flows), flows.settings.output.topic
    admin = kafka_client.admin(flows.settings.kafka)
    minutes.append(CALM, 2)
    run(flows, read(12))
    assert flows.ask("select count(*) from flag_states") == [(0,)]
    minutes.append(CALM, 1)
    _delete(flows, 6)
    refused(flows, "retention deleted")
    assert "is kept" in forfeit(flows, capsys)
    # From here on the state is written with all that is told, so nothing told is lost with the log (flag_state.py).
    with beside(flows, "often.yaml", flags={"snapshot_every_secs": 0.001}) as often:
        minutes.append(HOT, 4)
        run(often, f"{read(3 * (6 + 8))} join flag_states using (flow, topic, partition, resume)")
        assert episodes(often) == [(None, 3)]
        minutes.append(HOT, 3)
        _delete(often, 6 + 8 + 6)
        refused(often, "retention deleted")
        forfeit(often, capsys)
        minutes.append(HOT, 1)
        run(often, read(3 * (6 + 8 + 6 + 2)))
        assert episodes(often) == [(None, 3)], "nobody is paged again for what stood open"
        minutes.append(CALM, 3)
        run(often, read(3 * (6 + 8 + 6 + 2 + 6)))
        assert episodes(often) == [("calm", 3)]

        admin.delete_topics([topic])[topic].result(30)
        wait_for(lambda: topic not in admin.list_topics(timeout=30).topics, "the topic is gone")
        kafka_topics.ensure(often.settings)
        minutes.append(HOT, 2)
        refused(often, "deleted and made again")
        assert "is kept" in forfeit(often, capsys, "--at", "beginning")
        run(often, read(3 * 4))
        assert episodes(often) == [("calm", 3), (None, 3)]

        all_topics = (topic, often.settings.flags.topic)
        for growing in admin.create_partitions([NewPartitions(name, 4) for name in all_topics]).values():
            growing.result(30)
        wait_for(lambda: {_partitions(often, name) for name in all_topics} == {4}, "there are four")
        with beside(often, "grown.yaml", kafka={"partitions": 4}) as grown:
            refused(grown, "had 3 partitions")
            assert "begun anew" in forfeit(grown, capsys)
            minutes.append(CALM, 1, partitions=4)
            run(grown, read(3 * 6 + 2, partitions=4))
            assert episodes(grown) == [("calm", 3), ("settings", 3)], "what stood open is closed"

            flags = grown.ask("select * from anomaly_flags order by device_id, bucket")
            with psycopg.connect(grown.settings.database.conninfo) as connection:
                connection.execute("delete from progress")
            refused(grown, "has no progress")
            forfeit(grown, capsys, "--at", "beginning")
            run(grown, read(3 * 6 + 2, partitions=4))
            assert grown.ask("select * from anomaly_flags order by device_id, bucket") == flags, "each is itself again"


def _partitions(flows: Topology, topic: str) -> int:
    return len(KafkaLog(flows.settings.kafka, topic, "grown").partitions())


def _delete(flows: Topology, offset: int) -> None:
    """As retention does, in every partition."""
    places = [TopicPartition(flows.settings.output.topic, partition, offset) for partition in range(3)]
    admin = kafka_client.admin(flows.settings.kafka)
    for answer in admin.delete_records(places).values():
        answer.result(30)
