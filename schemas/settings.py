"""Settings: one YAML file, typed. Each component receives its own section and no other.

Units stand at the end of a name. ``infra/settings/demo.yaml`` comments every key once; loading and the operator's
errors are in ``schemas.settings_file``, which alone checks the ranges that stand in the types here.

Guarantee: ``repr`` of a section shows no secret.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from schemas.mqtt_filters import filter_of, overlap

DAY_SECS: Final = 86_400
YEARS_SECS: Final = 10 * 366 * DAY_SECS  # bounds what nobody needs longer, and keeps sums of times far from overflow

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Secs = Annotated[float, Meta(ge=0, le=YEARS_SECS)]
KeptDays = Annotated[int, Meta(ge=2, le=36_500)]
SomeSecs = Annotated[float, Meta(ge=0.001, le=YEARS_SECS)]  # at least a millisecond
Text = Annotated[str, Meta(min_length=1)]
# Names that go into SQL, and Kafka topics: https://kafka.apache.org/documentation/#topicconfigs
Table = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
Topic = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
# Names that MQTT brokers and headers carry unharmed.
Plain = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,128}$")]

# What a record of the events topic can say of itself; no dataflow reads it.
EventHeader = Literal["device-id", "schema-version", "ingest-node-id"]
EVENT_HEADERS: Final[frozenset[EventHeader]] = frozenset(get_args(EventHeader))

HIDDEN: Final = "(hidden)"
_SECRET_KEY: Final = re.compile(r"password|secret|token|credential|jaas|\.key$|\.pem$|private", re.IGNORECASE)
_CONNINFO_SECRET: Final = re.compile(r"((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'?|[^\s&]*)", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(//[^:/?#@]*):.*@", re.DOTALL)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section refuses keys it does not know, and never shows a secret."""

    def redacted(self) -> dict[str, Any]:
        """The settings as plain values, with secrets hidden: for logs and people."""
        shown: dict[str, Any] = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            shown[name] = value.redacted() if isinstance(value, Section) else _shown(name, value)
        return shown

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.redacted().items())
        return f"{type(self).__name__}({inner})"


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(str(key), each) for key, each in value.items()}
    if value is not None and _SECRET_KEY.search(name):
        return HIDDEN
    if isinstance(value, str):
        return _CONNINFO_SECRET.sub(rf"\1{HIDDEN}", _USERINFO.sub(rf"\1:{HIDDEN}@", value))
    return value


class MqttSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: Text = "mqtt://127.0.0.1:1883"  # mqtts:// for TLS; credentials in it move to username and password when loaded
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    topic: Text = "devices/{device_id}/telemetry"
    device_id_template: Text = "{device_id}"
    client_id: Plain = "ionwax-ingest"  # stable; clients append -0, -1, …
    clients: Annotated[int, Meta(ge=1, le=256)] = 1  # a fixed number; a shared subscription when above one
    share_name: Plain = "ionwax"
    receive_max: Annotated[int, Meta(ge=1, le=65_535)] = 65_535  # received and not yet acknowledged, per client
    keepalive_secs: Annotated[int, Meta(ge=1, le=65_535)] = 60
    session_expiry_secs: Annotated[int, Meta(ge=1, le=2**32 - 1)] = 86_400
    tick_secs: Annotated[float, Meta(ge=0.001, le=3600)] = 1.0
    broker_queue_messages_max: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None  # 0 is no limit, None not known

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: set both or none")

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the ingest workers, one an MQTT client: client ids, and names in ticks."""
        return tuple(f"{self.client_id}-{i}" for i in range(self.clients))


class DecodingSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    # A record of Kafka is 2 MiB at most (connectors.kafka_client). As protobuf a metric is up to 10 bytes longer than
    # as JSON, so both limits together keep any payload within, as a message and as a dead letter.
    payload_bytes_max: Annotated[int, Meta(ge=1, le=1_310_720)] = 1_048_576
    metrics_max: Annotated[int, Meta(ge=1, le=65_536)] = 1_000  # metrics in one message
    formats: Mapping[str, Mapping[str, str]] = {}  # content type → json_paths: device_id, ts, metrics


class KafkaSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    bootstrap_servers: Text = "127.0.0.1:9092"
    properties: Mapping[str, str | int | float | bool] = {}  # any librdkafka property
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = 4
    replication: Annotated[int, Meta(ge=1, le=100)] = 1
    min_insync_replicas: Annotated[int, Meta(ge=1, le=100)] = 1
    retention_hours: Annotated[int, Meta(ge=1, le=1_000_000)] = 168
    events_topic: Topic = "raw.events"
    dead_letter_topic: Topic = "raw.dead_letter"
    event_headers: frozenset[EventHeader] = EVENT_HEADERS  # of the records of events_topic

    def __post_init__(self) -> None:
        if self.min_insync_replicas > self.replication:
            raise ValueError("min_insync_replicas is above replication: nothing could be written")
        if self.events_topic == self.dead_letter_topic:
            raise ValueError("events_topic and dead_letter_topic are one; give each its own")


class DatabaseSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    conninfo: Text = "postgresql://127.0.0.1:5432/ionwax"
    outage_max_secs: Secs = 600  # how long a running process waits for a database that is away before it stops


class WindowSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    length_secs: Annotated[int, Meta(ge=1, le=DAY_SECS)] = 60  # a divisor of a day
    allowed_lateness_secs: Secs = 10
    clock_skew_max_secs: Secs = 60
    quiet_secs: Secs = 10
    patience_secs: SomeSecs = 300
    event_age_max_secs: SomeSecs = 604_800
    buffer_rows_max: Count = 50_000_000  # readings in open windows, per partition

    def __post_init__(self) -> None:
        if self.length_secs < 1 or DAY_SECS % self.length_secs:
            raise ValueError(f"length_secs does not divide a day; {_divisor_near(self.length_secs)} does")


def _divisor_near(length_secs: int) -> int:
    divisors = (n for n in range(1, DAY_SECS + 1) if DAY_SECS % n == 0)
    return min(divisors, key=lambda n: abs(math.log(n / max(1, length_secs))))


class FlowSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Plain = "minute_rollups"
    start: Literal["earliest", "latest"] = "earliest"  # where a partition without progress begins
    epoch_interval_ms: Annotated[int, Meta(ge=1, le=60_000)] = 200
    progress_every_secs: Secs = 10


class OutputSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    table: Table = "rollups_1m"
    topic: Topic = "aggregates.minute"


class ArchiveSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Plain = "raw_archive"
    table: Table = "raw_telemetry"
    batch_rows: Count = 1_000
    batch_wait_ms: Annotated[int, Meta(ge=1, le=60_000)] = 100
    tells_copies: bool = True  # where the archive runs, late readings wait until it has passed them


class FlagSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Plain = "anomaly_flags"
    start: Literal["earliest", "latest"] = "earliest"  # where a partition without progress begins
    table: Table = "anomaly_flags"
    topic: Topic = "anomalies"
    rules_file: Text = "rules.yaml"  # beside the settings file, unless it is absolute
    snapshot_every_secs: SomeSecs = 300
    forget_after_hours: Annotated[int, Meta(ge=1, le=87_600)] = 168
    series_max: Count = 1_000_000  # per partition
    alerts: bool = True
    alert_topic: Text = "alerts/{device_id}"
    alert_client_id: Plain = "ionwax-alerts"
    alert_age_max_hours: Annotated[int, Meta(ge=1, le=87_600)] = 24  # older anomalies page nobody

    def __post_init__(self) -> None:
        levels = self.alert_topic.split("/")
        if levels.count("{device_id}") != 1 or re.search(r"[{}+#\0]", self.alert_topic.replace("{device_id}", "")):
            raise ValueError("alert_topic has one level {device_id} and no other braces, + or #, as alerts/{device_id}")
        if len(self.alert_topic) > 1_000 or levels[0].startswith("$"):
            raise ValueError("alert_topic is too long, or begins with $, which belongs to the broker")


class RetentionSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    readings_days: KeptDays | None = 30  # None: for ever, here and below
    minutes_days: KeptDays | None = 400  # late readings too
    hours_days: KeptDays | None = None
    days_days: KeptDays | None = None
    flags_days: KeptDays | None = 400
    columnstore_after_days: Annotated[int, Meta(ge=1, le=36_500)] | None = 8  # None: never


class MetricsSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0  # of the first process; each further one of a flow adds its index
    epoch_age_max_secs: SomeSecs = 10  # beyond these a process is not ready
    commit_age_max_secs: SomeSecs = 60


class Settings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mqtt: MqttSettings = MqttSettings()
    decoding: DecodingSettings = DecodingSettings()
    kafka: KafkaSettings = KafkaSettings()
    database: DatabaseSettings = DatabaseSettings()
    windows: WindowSettings = WindowSettings()
    flow: FlowSettings = FlowSettings()
    output: OutputSettings = OutputSettings()
    archive: ArchiveSettings = ArchiveSettings()
    flags: FlagSettings = FlagSettings()
    retention: RetentionSettings = RetentionSettings()
    metrics: MetricsSettings = MetricsSettings()

    def __post_init__(self) -> None:
        if self.output.topic in (self.kafka.events_topic, self.kafka.dead_letter_topic):
            raise ValueError("output.topic is one of kafka.events_topic and kafka.dead_letter_topic; give it its own")
        if self.archive.name == self.flow.name or self.archive.table == self.output.table:
            raise ValueError("archive.name and archive.table are other than flow.name and output.table")
        others = (self.kafka.events_topic, self.kafka.dead_letter_topic, self.output.topic)
        if self.flags.topic in others or self.flags.table in (self.output.table, self.archive.table):
            raise ValueError("flags.topic or flags.table is that of another flow; give it its own")
        if self.flags.name in (self.flow.name, self.archive.name):
            raise ValueError("flags.name is other than flow.name and archive.name")
        if self.flags.alerts and overlap(filter_of(self.mqtt.topic), filter_of(self.flags.alert_topic)):
            raise ValueError(
                "mqtt.topic would receive what is sent to flags.alert_topic, ingest its own alerts: let one of them "
                "begin with another word, or set flags.alerts to false"
            )

        for name in ("minutes_days", "readings_days"):
            kept_days = getattr(self.retention, name)
            if kept_days is not None and self.windows.event_age_max_secs >= kept_days * DAY_SECS:
                raise ValueError(
                    f"retention.{name} is {kept_days}, and windows.event_age_max_secs accepts readings that are older: "
                    "they would fall on days that were dropped. Keep more days, or accept less than "
                    f"{kept_days * DAY_SECS} s"
                )

    def to_builtins(self) -> dict[str, Any]:
        """The settings as plain values, secrets included: for digests and tests, never for a log."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
