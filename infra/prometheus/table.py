"""The table of metrics, made from the code: ``python -m infra.prometheus.table`` writes METRICS.md anew."""

from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric

from connectors import health, mqtt_meter  # noqa: F401  (what they register)
from connectors.metering import REGISTRY

FILE: Final = Path(__file__).with_name("METRICS.md")
HEAD: Final = """\
# Metrics

Every dataflow process serves them on `/metrics`; the address is printed at its start (settings: `metrics`). Made by
`python -m infra.prometheus.table` from `connectors/metering.py` and `connectors/health.py`. Beside them stand
Prometheus's own `process_…` for CPU, memory and open files.

What begins with `ionwax_ledger_` grows after a commit, by what it added to the table `ledger`.

| name | type | labels | meaning |
|---|---|---|---|
"""


def metrics_table() -> str:
    """The whole document."""
    families = sorted((one for one in REGISTRY.collect() if one.name.startswith("ionwax_")), key=lambda one: one.name)
    return HEAD + "".join(map(_row, families))


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return f"| `{name}` | {family.type} | {', '.join(_labels(family)) or '–'} | {family.documentation} |\n"


def _labels(family: Metric) -> tuple[str, ...]:
    """Those it was made with: a family without samples has them too."""
    collector = REGISTRY._names_to_collectors.get(family.name)
    return tuple(getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ()))


if __name__ == "__main__":
    FILE.write_text(metrics_table(), "utf-8")
