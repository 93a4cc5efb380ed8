"""The Grafana dashboard, made from a list: ``python -m infra.prometheus.dashboard`` writes grafana.json anew.

Import grafana.json (Dashboards, New, Import) and choose the Prometheus that scrapes the dataflows. From left to right
and top to bottom it answers: does it work, does it keep up, is what it counts right, what is wrong with
the devices, does the broker hold.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = Path(__file__).with_name("grafana.json")
WIDTH, HEIGHT, COLUMNS = 8, 7, 3


class Panel(NamedTuple):
    """One graph. ``unit`` is Grafana's name of it."""

    title: str
    meaning: str
    unit: str
    expression: str
    legend: str


PANELS: Final = (
    Panel("Ready", "1 while /ready says so", "short", 'ionwax_ready{flow=~"$flow"}', "{{flow}} {{instance}}"),
    Panel("Epoch age", "The heartbeat: an epoch ends several times a second", "s",
          'ionwax_epoch_age_seconds{flow=~"$flow"}', "{{flow}} {{instance}}"),
    Panel("Waiting for servers", "Nothing is lost meanwhile", "s",
          'ionwax_waiting_seconds{flow=~"$flow"}', "{{flow}}: {{server}}"),
    Panel("Messages accounted for", "Committed, with their rows", "mps",
          'sum by (flow) (rate(ionwax_ledger_messages_total{flow=~"$flow"}[$__rate_interval]))', "{{flow}}"),
    Panel("Lag", "Records of the log that were not read yet", "short",
          'sum by (flow, topic) (ionwax_log_lag_records{flow=~"$flow"})', "{{flow}} {{topic}}"),
    Panel("Watermark delay", "Readings older than the watermark come late. About a minute in live flow", "s",
          'ionwax_watermark_delay_seconds{flow=~"$flow"}', "{{flow}} {{partition}}"),
    Panel("Uncommitted for", "How long the oldest record that was read waits for its commit", "s",
          'max by (flow) (ionwax_uncommitted_age_seconds{flow=~"$flow"})', "{{flow}}"),
    Panel("Commit, 95 of 100", "Time of a transaction, an outage's tries included", "s",
          'histogram_quantile(0.95, sum by (flow, le) '
          '(rate(ionwax_commit_duration_seconds_bucket{flow=~"$flow"}[$__rate_interval])))', "{{flow}}"),
    Panel("Open rows", "Readings in open windows, about 24 bytes each", "short",
          'sum by (flow) (ionwax_open_rows{flow=~"$flow"})', "{{flow}}"),
    Panel("Readings", "Committed: within rows, as revisions, as repetitions", "cps",
          'sum by (flow) (rate(ionwax_ledger_readings_total{flow=~"$flow"}[$__rate_interval]))', "{{flow}}"),
    Panel("Late, of all readings", "Each revises its row", "percentunit",
          'sum by (flow) (rate(ionwax_ledger_late_total{flow=~"$flow"}[$__rate_interval]))'
          ' / sum by (flow) (rate(ionwax_ledger_readings_total{flow=~"$flow"}[$__rate_interval]))', "{{flow}}"),
    Panel("Rejected", "Payloads to the dead letter, by reason", "cps",
          'sum by (flow, reason) (rate(ionwax_rejected_total{flow=~"$flow"}[$__rate_interval]))',
          "{{flow}}: {{reason}}"),
    Panel("Episodes", "Anomalies that opened in an hour, by severity", "short",
          'sum by (severity) (increase(ionwax_episodes_opened_total{flow=~"$flow"}[1h]))', "{{severity}}"),
    Panel("Flags", "Minutes found wrong, in an hour", "short",
          'sum by (flow) (increase(ionwax_flags_committed_total{flow=~"$flow"}[1h]))', "{{flow}}"),
    Panel("Alerts outstanding", "The broker has not acknowledged them; nothing is committed meanwhile", "short",
          "ionwax_alerts_outstanding", "{{client}}"),
    Panel("MQTT messages", "Received by each worker", "mps",
          "rate(ionwax_mqtt_received_messages_total[$__rate_interval])", "{{worker}}"),
    Panel("PUBACKs outstanding", "Received, and not durable yet", "short",
          "ionwax_mqtt_pubacks_outstanding", "{{worker}}"),
    Panel("Ticks", "Sent each second where nothing is behind; windows close on them", "cps",
          "rate(ionwax_ingest_ticks_total[$__rate_interval])", "{{worker}} {{fate}}"),
    Panel("Processor", "Of one core", "percentunit",
          'rate(process_cpu_seconds_total{job="ionwax"}[$__rate_interval])', "{{instance}}"),
    Panel("Memory", "Resident", "bytes", 'process_resident_memory_bytes{job="ionwax"}', "{{instance}}"),
    Panel("Reconnects", "To the MQTT broker, in a quarter of an hour", "short",
          "increase(ionwax_mqtt_reconnects_total[15m])", "{{worker}}"),
)  # fmt: skip


def dashboard() -> str:
    """The whole document."""
    return json.dumps(_document(), indent=1) + "\n"


def _document() -> dict[str, Any]:
    return {
        "uid": "ionwax",
        "title": "Ionwax",
        "tags": ["ionwax"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), _flow()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _flow() -> dict[str, Any]:
    query = "label_values(ionwax_ready, flow)"
    return {
        "name": "flow",
        "label": "Dataflow",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": "flow"},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": source,
        "gridPos": {
            "x": number % COLUMNS * WIDTH, "y": number // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": "A", "datasource": source, "expr": panel.expression, "legendFormat": panel.legend},
        ],
    }  # fmt: skip


if __name__ == "__main__":
    FILE.write_text(dashboard(), "utf-8")
