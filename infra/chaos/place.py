"""What is a run's own: names of topics, tables and sessions, in settings files by which its flows reach the servers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from schemas.settings import Settings
from schemas.settings_file import load

DISTURBED: Final = "disturbed"
UNDISTURBED: Final = "undisturbed"
WINDOWS: Final = {"length_secs": 4, "allowed_lateness_secs": 2, "quiet_secs": 2, "patience_secs": 30}
RULES: Final = """\
rules:  # beside the defaults. The fleet's machines are switched on and off every five minutes, some of them
- {name: "off", detector: threshold, metrics: running, below: 0.5, close_after_mins: 1}
- {name: moved, detector: rate, metrics: temperature, above: 5, span_mins: 1, close_after_mins: 1}
- {name: stuck, after_rollups: 2, learn_rollups: 5, once_in: 10, close_after_mins: 1, cool_down_mins: 0}
"""


@dataclass(frozen=True)
class Place:
    """``prefix`` begins every name at the servers; ``folder`` holds settings, logs and the fleet's record."""

    folder: Path
    prefix: str

    @property
    def record(self) -> Path:
        """What the fleet sent, and what of it was acknowledged."""
        return self.folder / "sent.jsonl"

    @property
    def alerts(self) -> str:
        """The filter of all alerts."""
        return f"{self.prefix}-alerts/#"

    def written(self, name: str, addresses: Mapping[str, str], of: str = DISTURBED, flags: str = DISTURBED) -> Settings:
        """A settings file ``name``, with what is particular to the disturbed flows or the undisturbed ones.

        Undisturbed ``flags`` of the disturbed rollups read the same log as the disturbed flags.
        """
        (self.folder / "rules.yaml").write_text(RULES)
        path = self.folder / f"{name}.yaml"
        path.touch(0o600)  # the address of the database may hold a password
        path.write_text(yaml.safe_dump(self._document(addresses, of, flags)))
        return load(path, {})

    def _document(self, addresses: Mapping[str, str], of: str, flags: str) -> dict[str, Any]:
        prefix = self.prefix
        return {
            "mqtt": {
                "url": addresses["mqtt"],
                "client_id": prefix,
                "topic": f"{prefix}/{{device_id}}/telemetry",
                "clients": 2,
                "share_name": prefix,
                "session_expiry_secs": 3_600,
                "keepalive_secs": 10,
            },
            "kafka": {
                "bootstrap_servers": addresses["kafka"],
                "partitions": 3,
                "events_topic": f"{prefix}.events",
                "dead_letter_topic": f"{prefix}.dead.{of}",
            },
            "database": {"conninfo": addresses["database"]},
            "windows": WINDOWS,
            "flow": {"name": of, "progress_every_secs": 1},
            "output": {"table": f"rollups_{of}", "topic": f"{prefix}.{of}"},
            "flags": {
                "name": f"flags_{flags}",
                "table": f"flags_{flags}",
                "topic": f"{prefix}.flags.{flags}",
                "snapshot_every_secs": 5,
                "alert_topic": f"{prefix}-alerts/{flags}/{{device_id}}",
                "alert_client_id": f"{prefix}-{flags}",
            },
        }
