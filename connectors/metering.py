"""What a dataflow process counts and shows, in Prometheus's names and units; ``connectors.metrics_server`` serves it.

Rule: reported once a batch, a commit or an epoch, never once a reading. ``infra/prometheus/METRICS.md`` is made from
this file, and a test holds it to that.

Guarantee: what is called ``ionwax_ledger_…`` grows after a commit, by what that commit added to the table ``ledger``:
the sum over all processes that ever ran, none killed between a commit and its count, is the ledger. The rest counts
what a process did, and some of it is done again after a crash.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.progress import Claim, Counts
from schemas.rules import SEVERITIES

REGISTRY: Final = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)  # CPU, memory and open files of the process

PARTITION: Final = ("flow", "topic", "partition")
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)

LEDGER: Final = {
    "messages": "Records committed as messages.",
    "ticks": "Records committed as ticks, or as a topic's other marks.",
    "refused": "Records committed as refused, whole.",
    "gaps": "Offsets committed that held no record.",
    "readings": "Readings committed.",
    "counted": "Readings committed within rows.",
    "late": "Readings committed as revisions of a row.",
    "duplicates": "Readings committed as repetitions of one on time.",
    "late_duplicates": "Readings committed as repetitions of a late one, or late ones of one on time.",
}
_counters: Final = {
    field.name: Counter(
        f"ionwax_ledger_{field.name}",
        LEDGER.get(field.name, f"Committed as {field.name}, as the ledger says it."),
        PARTITION,
        registry=REGISTRY,
    )
    for field in fields(Counts)
    if field.name != "open"  # goes down too: ionwax_open_rows
}

_commits = Counter("ionwax_commits", "Transactions committed.", PARTITION, registry=REGISTRY)
_commit_secs = Histogram(
    "ionwax_commit_duration_seconds",
    "From the fence to the answer to COMMIT, tries during an outage included.",
    ("flow", "topic"),
    buckets=SECONDS,
    registry=REGISTRY,
)
_lag = Gauge(
    "ionwax_log_lag_records",
    "Offsets of the log that were not read yet, as of the last batch.",
    PARTITION,
    registry=REGISTRY,
)
_open_rows = Gauge("ionwax_open_rows", "Readings in open windows, duplicates included.", PARTITION, registry=REGISTRY)
_watermark_delay = Gauge(
    "ionwax_watermark_delay_seconds",
    "How far the watermark, before which readings are late, is behind the clock; absent until a window has closed.",
    PARTITION,
    registry=REGISTRY,
)
_rollups = Counter(
    "ionwax_rollups_committed", "Rollups committed, of windows that closed.", PARTITION, registry=REGISTRY
)
_flags = Counter(
    "ionwax_flags_committed", "Flags committed: minutes found wrong, those judged anew among them.", PARTITION,
    registry=REGISTRY,
)  # fmt: skip
_episodes = {
    "open": Counter("ionwax_episodes_opened", "Anomalies committed as open.", ("flow", "severity"), registry=REGISTRY),
    "close": Counter("ionwax_episodes_closed", "Anomalies committed as over.", ("flow", "severity"), registry=REGISTRY),
}
_flag_series = Gauge("ionwax_flag_series", "Series that the state of a partition knows.", PARTITION, registry=REGISTRY)
_alerts_sent = Counter("ionwax_alerts_sent", "Alerts that the broker has acknowledged.", ("client",), registry=REGISTRY)
_alerts_outstanding = Gauge(
    "ionwax_alerts_outstanding", "Alerts that the broker has not acknowledged yet.", ("client",), registry=REGISTRY
)
_rejected = Counter(
    "ionwax_rejected", "Payloads sent to the dead letter, whole or for a part, by first reason.", ("flow", "reason"),
    registry=REGISTRY,
)  # fmt: skip
_ingested = Counter("ionwax_ingest_messages", "Messages decoded for the log.", ("worker",), registry=REGISTRY)
_untimed = Counter(
    "ionwax_ingest_untimed_messages", "Messages without a time of their own: sent twice they count twice.",
    ("worker",), registry=REGISTRY,
)  # fmt: skip
_again = Counter(
    "ionwax_ingest_redelivered_messages", "Messages that came again and were in the log already.", ("worker",),
    registry=REGISTRY,
)  # fmt: skip
_ticks = Counter(
    "ionwax_ingest_ticks", "Ticks, by whether they were sent or held back by a backlog.", ("worker", "fate"),
    registry=REGISTRY,
)  # fmt: skip
_flushed = Counter(
    "ionwax_kafka_flushed_records", "Records handed to Kafka and known to be durable.", registry=REGISTRY
)


class LogMeter:
    """One partition of a log as its source sees it."""

    def __init__(self, claim: Claim) -> None:
        self._lag = _lag.labels(*_labels(claim))

    def read(self, next_offset: int, end: int | None) -> None:
        """The source has read up to ``next_offset`` of a log that ends at ``end``, where it knows."""
        if end is not None:
            self._lag.set(max(0, end - next_offset))


class SealMeter:
    """The commits of one partition."""

    def __init__(self, claim: Claim) -> None:
        labels = _labels(claim)
        self._ledger = {name: counter.labels(*labels) for name, counter in _counters.items()}
        self._commits = _commits.labels(*labels)
        self._secs = _commit_secs.labels(claim.flow, claim.topic)

    def committed(self, counts: Counts, secs: float) -> None:
        """A transaction that added ``counts`` to the ledger was committed, and took ``secs``."""
        for name, counter in self._ledger.items():
            counter.inc(getattr(counts, name))
        self._commits.inc()
        self._secs.observe(secs)


class WindowMeter:
    """The windows of one partition."""

    def __init__(self, claim: Claim) -> None:
        self._labels = _labels(claim)
        self._open_rows = _open_rows.labels(*self._labels)
        self._watermark_ms: int | None = None

    def now(self, open_rows: int, watermark_ms: int | None) -> None:
        self._open_rows.set(open_rows)
        if self._watermark_ms is None and watermark_ms is not None:
            _watermark_delay.labels(*self._labels).set_function(lambda: time.time() - (self._watermark_ms or 0) / 1000)
        self._watermark_ms = watermark_ms


def rollups_committed(claim: Claim, rollups: int) -> None:
    _rollups.labels(*_labels(claim)).inc(rollups)


def flags_committed(claim: Claim, flags: int, episodes: Mapping[tuple[str, str], int]) -> None:
    """Flags of one commit, and the episodes that opened or closed with it: (phase, severity) → how many."""
    _flags.labels(*_labels(claim)).inc(flags)
    for (phase, severity), often in episodes.items():
        _episodes[phase].labels(claim.flow, severity).inc(often)


class FlagMeter:
    """The state of flags of one partition."""

    def __init__(self, claim: Claim) -> None:
        self._series = _flag_series.labels(*_labels(claim))
        for episodes in _episodes.values():
            for severity in SEVERITIES:
                episodes.labels(claim.flow, severity)  # is 0 before the first: Prometheus sees increases only

    def now(self, series: int) -> None:
        self._series.set(series)


class AlertMeter:
    """The alerts of one MQTT client."""

    def __init__(self, client: str) -> None:
        self._sent = _alerts_sent.labels(client)
        self._outstanding = _alerts_outstanding.labels(client)

    def now(self, outstanding: int) -> None:
        """So many are to be acknowledged."""
        self._outstanding.set(outstanding)

    def sent(self, alerts: int) -> None:
        """So many were acknowledged, of those outstanding."""
        self._sent.inc(alerts)
        self._outstanding.dec(alerts)


def rejected(flow: str, reasons: Iterable[tuple[str, int]]) -> None:
    """Reasons, and how many payloads went to the dead letter for each."""
    for reason, payloads in reasons:
        _rejected.labels(flow, reason).inc(payloads)


def ingested(worker: str, *, messages: int, untimed: int, again: int) -> None:
    """What an ingest worker's step made of one item."""
    _ingested.labels(worker).inc(messages)
    _untimed.labels(worker).inc(untimed)
    _again.labels(worker).inc(again)


def ticked(worker: str, *, held_back: bool) -> None:
    _ticks.labels(worker, "held_back" if held_back else "sent").inc()


def flushed(records: int) -> None:
    """Records that Kafka has acknowledged, all of them since the last flush."""
    _flushed.inc(records)


class MqttCounts(Protocol):
    """What an MQTT client counts by itself, read when Prometheus asks."""

    @property
    def worker(self) -> str: ...
    @property
    def received(self) -> int: ...
    @property
    def acknowledged(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def outstanding(self) -> int: ...
    @property
    def connected(self) -> bool: ...
    @property
    def reconnects(self) -> int: ...


class _MqttClients(Collector):
    """The MQTT clients of this process, by worker: the last one of each name."""

    def __init__(self) -> None:
        self._clients: dict[str, MqttCounts] = {}

    def add(self, client: MqttCounts) -> None:
        self._clients[client.worker] = client

    def collect(self) -> Iterator[Metric]:
        clients = list(self._clients.values())
        for name, words, values in (
            ("received_messages", "Messages received.", [one.received for one in clients]),
            (
                "acknowledged_messages",
                "PUBACKs sent: their messages are durable.",
                [one.acknowledged for one in clients],
            ),
            ("dropped_messages", "Received and left for the broker to send again.", [one.dropped for one in clients]),
            ("reconnects", "Connections after the first.", [one.reconnects for one in clients]),
        ):
            yield _family(CounterMetricFamily(f"ionwax_mqtt_{name}", words, labels=["worker"]), clients, values)
        for name, words, values in (
            (
                "pubacks_outstanding",
                "Messages received and not acknowledged yet.",
                [one.outstanding for one in clients],
            ),
            ("connected", "1 while the worker has its connection.", [int(one.connected) for one in clients]),
        ):
            yield _family(GaugeMetricFamily(f"ionwax_mqtt_{name}", words, labels=["worker"]), clients, values)


def _family(family: Metric, clients: Sequence[MqttCounts], values: Iterable[int]) -> Metric:
    assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
    for client, value in zip(clients, values, strict=True):
        family.add_metric([client.worker], value)
    return family


_mqtt = _MqttClients()
REGISTRY.register(_mqtt)
mqtt_client = _mqtt.add
"""Show what this client counts from now on."""


def _labels(claim: Claim) -> tuple[str, str, str]:
    return claim.flow, claim.topic, str(claim.partition)
