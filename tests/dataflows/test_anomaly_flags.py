"""``anomaly_flags`` as a process of its own, killed again and again, beside one that nobody disturbed."""

import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from connectors.kafka_sink import Publisher
from infra.letters.letter import letters
from infra.letters.redrive import redrive
from infra.migrations import migrate
from schemas.anomaly_flag_pb2 import AnomalyFlag
from schemas.record import Record
from tests.databases import fresh_database
from tests.flag_logs import encoded
from tests.flag_oracle import MINUTE, Closed, Rolled
from tests.infra.mqtt_ear import Ear
from tests.topology import DEADLINE_SECS, Topology, beside, topology, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

WINDOWS = 90
PARTITIONS = 3
RULES = """
rules:
  - {name: too-hot, detector: threshold, metrics: t, above: 8, clear: 4, severity: critical, for_mins: 2}
  - {name: warm, detector: threshold, metrics: t, above: 8, clear: 4, severity: info, for_mins: 2}
  - {name: novelty, detector: novelty, flag_at: 0.05, clear_at: 0.02, close_after_mins: 3, cool_down_mins: 0}
  - {name: silence, detector: silence, after_mins: 2, learn_rollups: 3, close_after_mins: 2, cool_down_mins: 0}
"""
FLAGS = "select * from anomaly_flags"
EPISODES = "select * from anomaly_episodes"


def log(partition: int, start_ms: int) -> list[Record]:
    """Ninety minutes of a partition: values that leave and come back, silences, revisions, stretches told again."""
    rng = np.random.default_rng(partition)
    told: list[Rolled | Closed] = []
    level = {f"device {partition}/{nth}#+": 1.0 for nth in range(6)}
    gone = dict.fromkeys(level, 0)
    for nth in range(WINDOWS):
        bucket = start_ms + nth * MINUTE
        if nth == 60:
            gone = dict.fromkeys(level, 64)  # all of them: the pipeline
        for device in level:
            if rng.random() < 0.1:
                level[device] = float(rng.choice([0.5, 1.0, 9.0, 25.0]))
            if rng.random() < 0.02:
                gone[device] = nth + 8
            if gone[device] <= nth:
                told.append(Rolled(0, bucket, device, "t", level[device] + float(rng.normal()) / 8))
        told.append(Closed(0, bucket + MINUTE))
        if nth % 10 == 9:
            told += told[-20:]
        if nth % 4 == 3:
            one = next(one for one in told[-12:] if isinstance(one, Rolled))
            told.append(one._replace(value=12.0, revision=one.revision + 1))
    return [record(one, partition) for one in told]


def record(one: Rolled | Closed, partition: int) -> Record:
    if isinstance(one, Closed):
        return Record("", encoded(one), headers=(("closed", b"%d" % one.end),), partition=partition)
    return Record("", encoded(one), one.device.encode(), partition=partition)


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, admin_url: str, mqtt_url: str
) -> Iterator[tuple[Topology, Topology]]:
    """Two topologies on one log, each with a database, a topic of flags and alerts of its own."""
    folder = tmp_path_factory.mktemp("flags")
    (folder / "rules.yaml").write_text(RULES)
    with ExitStack() as at_end:
        first, second = (at_end.enter_context(fresh_database(admin_url)) for _ in range(2))
        flags = {"snapshot_every_secs": 0.3}
        calm = at_end.enter_context(topology(folder, kafka_bootstrap, first, mqtt_url, flags=flags))
        migrate(second)
        theirs = {"topic": f"{calm.prefix}.killed", "alert_topic": f"{calm.prefix}-killed/{{device_id}}"}
        ours = {"topic": f"{calm.prefix}.calm", "alert_topic": f"{calm.prefix}-calm/{{device_id}}"}
        ids = [{"alert_client_id": f"{calm.prefix}-{name}"} for name in ("calm", "killed")]
        undisturbed = at_end.enter_context(beside(calm, "calm.yaml", flags=ours | ids[0]))
        killed = at_end.enter_context(beside(calm, "killed.yaml", flags=theirs | ids[1], database={"conninfo": second}))
        yield undisturbed, killed


def publish(to: Topology, records: list[list[Record]], share: tuple[float, float]) -> None:
    """Append a share of each partition's records."""
    publisher = Publisher(to.settings.kafka)
    for mine in records:
        begin, end = (int(part * len(mine)) for part in share)
        publisher.send_all([one._replace(topic=to.settings.output.topic) for one in mine[begin:end]])
    publisher.flush()


def position(of: Topology) -> int:
    ((found,),) = of.ask("select coalesce(sum(position), 0)::bigint from progress where flow = 'anomaly_flags'")
    return int(found)


def rows(of: Topology, query: str) -> list[tuple[Any, ...]]:
    """All columns; doubles as their hexadecimal form, so that equal means to the bit."""
    with psycopg.connect(of.settings.database.conninfo) as connection:
        found = connection.execute(query.encode()).fetchall()
    return sorted((tuple(v.hex() if isinstance(v, float) else v for v in row) for row in found), key=repr)


def told(of: Topology) -> Mapping[tuple[Any, ...], bytes]:
    """What stands in the topic of flags: of one flag and phase the highest revision, repetitions aside."""
    latest: dict[tuple[Any, ...], bytes] = {}
    for message in of.records(of.settings.flags.topic):
        flag = AnomalyFlag.FromString(message.value() or b"")
        key = (message.partition(), flag.device_id, flag.metric, flag.detector, flag.bucket, flag.phase, flag.revision)
        assert latest.setdefault(key, message.value()) == message.value()
    return latest


def keys(ear: Ear) -> list[str]:
    return [json.loads(payload)["idempotency_key"] for _, payload, _, _ in ear.heard]


def paged(ear: Ear) -> list[tuple[str, str]]:
    """Episode and phase of everything that alerts tell."""
    said = [json.loads(payload) for _, payload, _, _ in ear.heard]
    return sorted((one["episode_id"], alert["phase"]) for alert in said for one in (alert, *alert.get("also", ())))


def metrics(of: Topology, name: str) -> Counter[str]:
    """What a process that runs shows on /metrics: name → sum over all its labels."""
    (address,) = re.findall(r"metrics and health on (\S+)", of.log(name).read_text())
    with urllib.request.urlopen(f"{address}/metrics", timeout=DEADLINE_SECS) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    sums: Counter[str] = Counter()
    for sample in samples:
        sums[sample.name] += int(sample.value) if sample.name.startswith("ionwax_") else 0
    return sums


def test_killed_again_and_again_it_says_what_an_undisturbed_one_says(places: tuple[Topology, Topology]) -> None:
    """kill -9 at five places: the same rows to the bit, the same flags in Kafka, the same set of alerts; undisturbed,
    no alert comes twice. Nothing that was read again is counted again."""
    calm, killed = places
    start_ms = (time.time_ns() // 1_000_000 - (WINDOWS + 5) * MINUTE) // MINUTE * MINUTE
    records = [log(partition, start_ms) for partition in range(PARTITIONS)]
    total = sum(map(len, records))
    poison = [Record("", b"\xff\xff\xff", b"x", partition=partition) for partition in range(PARTITIONS)]
    records = [[*mine, last] for mine, last in zip(records, poison, strict=True)]
    total += PARTITIONS
    shares = [nth / 6 for nth in range(7)]
    with (
        Ear(killed.settings.mqtt.url, f"{killed.prefix}-killed/+") as page,
        Ear(calm.settings.mqtt.url, f"{calm.prefix}-calm/+") as quiet,
    ):
        killed.start("anomaly_flags", name="killed")
        for share in pairwise(shares):
            before = position(killed)
            publish(killed, records, share)
            wait_for(lambda before=before: position(killed) > before, "it goes on", killed.state)
            if share[1] < 1:
                killed.stop("killed", 9)
                killed.start("anomaly_flags", name="killed")
        wait_for(lambda: position(killed) == total, f"all {total} records are accounted for", killed.state)
        calm.start("anomaly_flags", name="calm")
        wait_for(lambda: position(calm) == total, f"all {total} records are accounted for", calm.state)
        shown = metrics(calm, "calm")
        assert [killed.stop("killed"), calm.stop("calm")] == [0, 0]
        episodes = rows(calm, EPISODES)
        open_and_closed = sorted(
            [(row[0], "open") for row in episodes] + [(row[0], "close") for row in episodes if row[9] is not None]
        )
        assert quiet.wait_until(lambda: len(paged(quiet)) >= len(open_and_closed))
        assert page.wait_until(lambda: set(keys(page)) == set(keys(quiet)))
    assert paged(quiet) == open_and_closed
    assert set(paged(page)) == set(open_and_closed)
    assert len(keys(quiet)) < len(open_and_closed), "what opens of a device in one minute is one alert"
    closed = len(open_and_closed) - len(episodes)
    assert (shown["ionwax_episodes_opened_total"], shown["ionwax_episodes_closed_total"]) == (len(episodes), closed)
    assert (shown["ionwax_alerts_sent_total"], shown["ionwax_alerts_outstanding"]) == (len(keys(quiet)), 0)
    assert shown["ionwax_flags_committed_total"] >= len(rows(calm, FLAGS)), "each, and those that were judged anew"
    assert (shown["ionwax_flag_series"], shown["ionwax_rejected_total"]) == (6 * PARTITIONS, PARTITIONS)
    assert {"too-hot", "warm", "novelty", "silence", "pipeline"} == {row[6] for row in episodes}
    assert episodes == rows(killed, EPISODES)
    assert rows(calm, FLAGS) == rows(killed, FLAGS)
    assert any(row[12] for row in rows(calm, FLAGS)), "some flag was revised"
    assert told(calm) == told(killed)
    ledger = "select partition, messages, ticks, refused, gaps from ledger where flow = 'anomaly_flags'"
    assert rows(calm, ledger) == rows(killed, ledger)
    assert sum(sum(row[1:]) for row in rows(calm, ledger)) == total
    assert [row[3] for row in rows(calm, ledger)] == [1] * PARTITIONS
    ((resumed,),) = killed.ask("select count(*) from progress join flag_states using (flow, topic, partition, resume)")
    assert resumed == PARTITIONS, "the state on record is the one that progress resumes from"
    stays(calm)


def stays(calm: Topology) -> None:
    """What flags refused is a dead letter that is listed, and that redrive leaves where it is."""
    found = redrive(calm.settings)
    ((reason, why),) = found.letters
    assert (found.records, reason) == (0, "bad_protobuf")
    assert f"is of {calm.settings.output.topic}" in why
    places = {(one.source, one.headers["source-partition"]) for one in letters(calm.settings.kafka)}
    assert places == {(calm.settings.output.topic, str(partition)) for partition in range(PARTITIONS)}


def test_wrong_starts_are_one_message(places: tuple[Topology, Topology]) -> None:
    """A rule that cannot be, a missing table or topic, an ingest that would hear its own alerts: it says what to do."""
    calm, _ = places
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "rules": ({"flags": {"rules_file": "wrong.yaml"}}, "detector"),
        "table": ({"flags": {"table": "no_such_flags"}}, "./justw migrate"),
        "topic": ({"flags": {"topic": "no.such.topic"}}, "./justw topics"),
        "loop": (
            {"mqtt": {"topic": "alerts/{device_id}"}, "flags": {"alert_topic": "alerts/{device_id}"}},
            "mqtt.topic",
        ),
    }
    (calm.folder / "wrong.yaml").write_text("rules:\n  - {name: a, detector: treshold}\n")
    document = yaml.safe_load(calm.settings_path.read_text())
    for name, (differs, said) in cases.items():
        other = {
            section: {**document.get(section, {}), **differs.get(section, {})} for section in {*document, *differs}
        }
        path = calm.folder / f"wrong-{name}.yaml"
        path.write_text(yaml.safe_dump(other))
        wrong = Topology(calm.prefix, calm.folder, Path(path), calm.settings)
        wrong.start("anomaly_flags", name=name)
        assert wrong.running[name].wait(90) == 78
        words = wrong.log(name).read_text()
        assert said in words
        assert "Traceback" not in words
