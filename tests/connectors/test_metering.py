"""What a process counts: equal to the ledger where it says so, and named as Prometheus and the table of metrics say."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest

from connectors import metrics_server
from connectors.health import HEALTH, Health
from connectors.metering import REGISTRY
from connectors.sealing import SealingSink
from infra.prometheus.table import metrics_table
from schemas.errors import OperatorError
from schemas.progress import Claim, Counts, Progress
from schemas.settings import MetricsSettings

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Item:
    """What a step hands to the sink."""

    progress: Progress
    counts: Counts


class Writer:
    """Finds two of the late readings to be repetitions, as the database would; its first try is lost."""

    def has_rows(self, item: Item) -> bool:  # noqa: ARG002
        return True

    def write(self, transaction: int, items: list[Item], counts: Counts) -> Counts:  # noqa: ARG002
        return Counts(**{**as_dict(counts), "late": counts.late - 2, "late_duplicates": transaction})

    def flush(self) -> None: ...


class Store:
    """Commits the second try, as after an outage."""

    def __init__(self) -> None:
        self.ledger = Counts()

    def seal(self, claim, before, after, work) -> None:  # type: ignore[no-untyped-def]  # noqa: ARG002
        work(7)
        self.ledger += work(2)

    def close(self) -> None: ...


def as_dict(counts: Counts) -> dict[str, int]:
    return {one.name: getattr(counts, one.name) for one in fields(counts)}


def values(flow: str) -> dict[str, float]:
    """The samples of a flow, by name without ``ionwax_`` and ``_total``."""
    return {
        sample.name.removeprefix("ionwax_").removesuffix("_total"): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("flow") == flow and "le" not in sample.labels
    }


def test_the_ledgers_counters_are_the_ledger() -> None:
    """What the committed try said, once, though another was made before; and nothing before the commit."""
    store, told = Store(), []
    sink: SealingSink[Item, int] = SealingSink(
        store,
        lambda: ["0"],
        lambda _claim: Writer(),
        told=lambda _claim, items: told.extend(items),  # type: ignore[arg-type]
    )
    part = sink.build_part("seal", "0", None)
    claim = Claim("metered", "log", 0, 1, "topic-1", Progress(0, 0, 0))
    HEALTH.claimed("metered", "log", 0, 0)
    HEALTH.read("log", 0, 9)
    item = Item(Progress(9, 0, 0), Counts(messages=5, ticks=1, refused=2, gaps=1, readings=8, counted=4, late=4))
    part.write_batch([claim, item])
    assert values("metered")["ledger_messages"] == 0
    assert values("metered")["log_uncommitted_records"] == 9
    part.snapshot()
    after = values("metered")
    assert {name: value for name, value in as_dict(store.ledger).items() if name != "open"} == {
        name: after[f"ledger_{name}"] for name in as_dict(store.ledger) if name != "open"
    }
    assert (after["ledger_late"], after["ledger_late_duplicates"]) == (2, 2)
    assert (after["commits"], after["commit_duration_seconds_count"], after["log_uncommitted_records"]) == (1, 1, 0)
    assert [item] == told


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where this process serves; the server ends with the process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_server, "_serving", metrics_server.threading.Event())
        patch.setattr(metrics_server, "HEALTH", Health())  # without the parts that other tests have left open
        said: list[str] = []
        patch.setattr(metrics_server, "say", said.append)
        metrics_server.serve(MetricsSettings(), "served")
        yield said[0].split()[-1]


def get(address: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_ready_answers_with_a_status_and_with_reasons(address: str) -> None:
    """For load balancers the one, for people the other."""
    metrics_server.HEALTH.built("unopened")
    status, body = get(f"{address}/ready")
    assert (status, json.loads(body)["reasons"]) == (503, ["not claimed or subscribed yet: unopened"])
    metrics_server.HEALTH.opened("unopened")
    assert (200, True) == ((found := get(f"{address}/ready"))[0], json.loads(found[1])["ready"])
    metrics_server.HEALTH.closed("unopened")


def test_metrics_are_served(address: str) -> None:
    """In the text format, for whoever asks; other paths name those there are."""
    status, body = get(f"{address}/metrics")
    assert status == 200
    assert b"# TYPE ionwax_ledger_readings_total counter" in body
    assert get(f"{address}/secrets") == (404, b"/metrics\n/ready\n")


def test_a_port_that_is_taken_is_one_message(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not metrics lost without a word, as the engine's own."""
    monkeypatch.setattr(metrics_server, "_serving", metrics_server.threading.Event())
    taken = int(address.rpartition(":")[2])
    with pytest.raises(OperatorError, match=f"metrics.port {taken} .* METRICS_PORT"):
        metrics_server.serve(MetricsSettings(port=taken - 1), "second", "1/2")


def test_the_table_of_metrics_is_current() -> None:
    """``python -m infra.prometheus.table`` writes it."""
    assert (ROOT / "infra/prometheus/METRICS.md").read_text("utf-8") == metrics_table()


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is not installed")
def test_prometheus_finds_nothing_to_say_about_names_and_units() -> None:
    """``promtool check metrics`` is silent."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(REGISTRY), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
