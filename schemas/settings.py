"""Settings: one YAML file, typed. Each component receives its own section and no other.

Units stand at the end of a name. ``infra/settings/*.yaml`` comments every key once; loading and the
operator's errors are in ``schemas.settings_file``.
"""

from collections.abc import Mapping
from typing import Any

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section refuses keys it does not know."""


class MqttSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str = "mqtt://127.0.0.1:1883"  # mqtts:// for TLS; never with credentials in it
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    topic: str = "devices/{device_id}/telemetry"
    device_id_template: str = "{device_id}"
    client_id: str = "ionwax-ingest"  # stable; clients append -0, -1, …
    clients: int = 1  # a fixed number; a shared subscription when above one
    share_name: str = "ionwax"
    receive_max: int = 65_535  # messages received and not yet acknowledged, per client
    keepalive_secs: int = 60
    session_expiry_secs: int = 86_400
    tick_secs: float = 1.0

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the ingest workers, one an MQTT client: client ids, and names in ticks."""
        return tuple(f"{self.client_id}-{i}" for i in range(self.clients))


class DecodingSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    payload_bytes_max: int = 1_048_576
    metrics_max: int = 1_000  # metrics in one message
    formats: Mapping[str, Mapping[str, str]] = {}  # name → json_paths: device_id, ts, metrics


class KafkaSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    bootstrap_servers: str = "127.0.0.1:9092"
    properties: Mapping[str, str | int | float | bool] = {}  # any librdkafka property
    partitions: int = 4
    replication: int = 1
    min_insync_replicas: int = 1
    retention_hours: int = 168
    events_topic: str = "raw.events"
    dead_letter_topic: str = "raw.dead_letter"


class DatabaseSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    conninfo: str = "postgresql://127.0.0.1:5432/ionwax"


class WindowSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    length_secs: int = 60  # a divisor of a day
    allowed_lateness_secs: float = 10
    clock_skew_max_secs: float = 60
    quiet_secs: float = 10
    patience_secs: float = 300
    event_age_max_secs: float = 604_800
    buffer_rows_max: int = 50_000_000  # readings in open windows, per partition


class FlowSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = "minute_rollups"
    start: str = "earliest"  # where a partition without progress begins: earliest or latest
    epoch_interval_ms: int = 200
    progress_every_secs: float = 10


class OutputSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    table: str = "rollups_1m"
    topic: str = "aggregates.minute"


class Settings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mqtt: MqttSettings = MqttSettings()
    decoding: DecodingSettings = DecodingSettings()
    kafka: KafkaSettings = KafkaSettings()
    database: DatabaseSettings = DatabaseSettings()
    windows: WindowSettings = WindowSettings()
    flow: FlowSettings = FlowSettings()
    output: OutputSettings = OutputSettings()

    def to_builtins(self) -> dict[str, Any]:
        """The settings as plain values, secrets included: for digests and tests, never for a log."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
