"""`./justw bench rollups`: from Kafka to rows in PostgreSQL, and others on the same kind of log.

One log a fleet is filled once, and every run reads all of it. The others are so much slower that they get a shorter
log of the same fleet, and rates are compared. All answers are compared with a plain group by.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

import yaml
from confluent_kafka.admin import AdminClient, NewTopic

from connectors import kafka_topics
from infra.bench import rollups_ours, rollups_peers
from infra.bench.case import Result
from infra.bench.rollups_log import Filled, fill
from infra.bench.table import machine, median_result
from infra.bench.windows_logs import METRICS, Fleet
from infra.embedded.kafka import KafkaBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.unprivileged import account_if_root, temporary_directory
from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.settings_file import load

FOLDER: Final = Path(__file__).parents[2] / "bench"
MINUTES: Final = 5
SHORTER: Final = 50
SHORT_MAX: Final = 200_000  # messages

Results = Mapping[int, Mapping[str, Sequence[Result]]]  # devices → name → runs


class Servers(NamedTuple):
    folder: Path
    settings: Settings
    settings_path: Path


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./justw bench rollups", description="Kafka to PostgreSQL, and others")
    parser.add_argument("--messages", type=int, default=2_000_000, metavar="N", help="in the log (2,000,000)")
    parser.add_argument("--devices", type=int, nargs="+", default=[1_000, 100_000], metavar="N", help="of each fleet")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each (3); medians are shown")
    parser.add_argument("--only", default="", metavar="TEXT", help="only what is named so; writes nothing")
    parser.add_argument("--headers", action="store_true", help="give records the headers of ingest; writes nothing")
    chosen = parser.parse_args(argv)
    try:
        results = {
            n: _fleet(n, chosen.messages, max(chosen.repeat, 1), chosen.only, chosen.headers) for n in chosen.devices
        }
    except OperatorError as error:
        print(error, file=sys.stderr)
        return 1
    table = markdown(results, chosen.messages)
    print(table)
    if not (chosen.only or chosen.headers):
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "rollups.md").write_text(table)
        (FOLDER / "rollups.json").write_text(plain(results))
    return 0


def _fleet(devices: int, messages: int, repeat: int, only: str, headers: bool) -> dict[str, list[Result]]:
    """All runs on the logs of one fleet, in turn."""
    ours = {f"`minute_rollups`, {n} process{'es' * (n > 1)}": n for n in (1, 2)}
    chosen = [name for name in (*ours, *rollups_peers.PROGRAMS) if only in name]
    results: dict[str, list[Result]] = {name: [] for name in chosen}
    with servers() as given:
        long = _filled(
            given, given.settings.kafka.events_topic, devices, messages, bool(ours.keys() & results), headers
        )
        few = min(max(messages // SHORTER, 10_000), SHORT_MAX)
        short = _filled(given, "bench.short", devices, few, bool(rollups_peers.PROGRAMS.keys() & results))
        for number in range(repeat):
            for name in chosen:
                if name in ours:
                    result = rollups_ours.measure(given.settings_path, long, ours[name])
                else:
                    folder = given.folder / f"{len(results)}-{number}-{chosen.index(name)}"
                    folder.mkdir()
                    result = rollups_peers.measure(name, given.settings.kafka.bootstrap_servers, short, folder)
                results[name].append(result)
                print(f"{devices:,} devices, {name}: {'; '.join(_cells(result))}", file=sys.stderr)
    return results


def _filled(given: Servers, topic: str, devices: int, messages: int, wanted: bool, headers: bool = False) -> Filled:
    fleet = Fleet(devices * len(METRICS), (messages if wanted else 1) * len(METRICS), MINUTES)
    print(f"filling {topic}: {fleet.messages:,} messages of {devices:,} devices", file=sys.stderr)
    return fill(given.settings, topic, fleet, ticks=topic == given.settings.kafka.events_topic, headers=headers)


@contextmanager
def servers() -> Iterator[Servers]:
    """An Apache Kafka and a PostgreSQL of their own, with topics, and settings that name them."""
    folder = temporary_directory(account_if_root())
    kafka, postgres = KafkaBroker(folder / "kafka"), PostgresServer(folder / "postgres")
    try:
        kafka.start()
        postgres.start()
        values = {
            "mqtt": {"client_id": "ingest", "clients": 1},
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "partitions": 4},
            "database": {"conninfo": postgres.conninfo},
            "windows": {"buffer_rows_max": 200_000_000},
        }
        path = folder / "bench.yaml"
        path.write_text(yaml.safe_dump(values))
        settings = load(path, {})
        kafka_topics.ensure(settings)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for made in admin.create_topics([NewTopic("bench.short", 4, 1)]).values():
            made.result(30)
        yield Servers(folder, settings, path)
    finally:
        postgres.stop()
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _cells(result: Result) -> tuple[str, ...]:
    messages = result.readings / len(METRICS)
    return (
        f"{messages / result.wall_secs / 1e6:.3f} M",
        f"{result.rate / 1e6:.2f} M",
        f"{result.cpu_secs / messages * 1e6:.2f}",
        f"{result.peak_mib:.0f}",
        result.note,
    )


def markdown(results: Results, messages: int) -> str:
    """The table, a part a fleet."""
    repeat = max(len(runs) for group in results.values() for runs in group.values())
    lines = [
        "# `./justw bench rollups`",
        "",
        f"{machine()}; load {os.getloadavg()[0]:.1f} at the end.",
        f"A log of {messages:,} messages of four metrics and {MINUTES} minutes in four partitions, disorder up to 5 s,",
        "as with `kafka.event_headers: []` (`--headers` measures with all three, which takes more);",
        f"for the others {SHORTER} times shorter, {SHORT_MAX:,} messages at most. Kafka and PostgreSQL run on the same",
        f"cores; their CPU is not in the table. Medians of {repeat}. Every row is compared with a group by.",
    ]
    for devices, group in results.items():
        lines += ["", f"## {devices:,} devices", ""]
        lines += [
            "| | messages/s | readings/s | CPU s a million messages | peak MiB a process | |",
            "|---|---|---|---|---|---|",
        ]
        lines += [f"| {' | '.join((name, *_cells(median_result(runs))))} |" for name, runs in group.items()]
    return "\n".join(lines) + "\n"


def plain(results: Results) -> str:
    """All runs, as JSON."""
    rows = [
        {"devices": devices, "name": name, "runs": [asdict(run) for run in runs]}
        for devices, group in results.items()
        for name, runs in group.items()
    ]
    return json.dumps({"machine": machine(), "cases": rows}, indent=1) + "\n"
