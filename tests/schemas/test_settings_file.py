"""Settings files: what is read, and what an operator who got one wrong is told."""

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.settings_file import load, load_settings

FILES = Path(__file__).parents[2] / "infra" / "settings"
SECRET = "hunter2"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def read(file: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> Settings:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file, environ or {})


def refusal(file: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> str:
    """The message, without the file's name."""
    with pytest.raises(OperatorError) as caught:
        read(file, text, environ)
    assert caught.value.__cause__ is None
    return str(caught.value).replace(f"{file}:", "")


# What is read


def test_a_file_says_what_differs(file: Path) -> None:
    """Everything else has its default; a section without settings has all of them."""
    settings = read(file, "windows: {quiet_secs: 5}\nkafka:\nflow:\n  name: other\n")
    assert (5.0, "other", 60) == (settings.windows.quiet_secs, settings.flow.name, settings.windows.length_secs)
    assert Settings().kafka == settings.kafka


def test_the_environment_fills_names_in(file: Path) -> None:
    """Whole values and parts of them, in properties too; numbers where numbers are wanted; $${ is a plain ${."""
    text = """
        mqtt: {password: "${A}", username: "u-${A}-${B}", clients: "${N}", topic: "$${x}/{device_id}"}
        kafka: {properties: {sasl.password: "${A}", socket.timeout.ms: 5}}
        decoding: {formats: {application/json: {metrics: "$.${B}"}}}
    """
    settings = read(file, text, {"A": "p: ${B} 'x' #1", "B": "b", "N": "3"})
    assert ("p: ${B} 'x' #1", "u-p: ${B} 'x' #1-b", 3) == (
        settings.mqtt.password,
        settings.mqtt.username,
        settings.mqtt.clients,
    )
    assert "${x}/{device_id}" == settings.mqtt.topic
    assert {"sasl.password": "p: ${B} 'x' #1", "socket.timeout.ms": 5} == settings.kafka.properties
    assert {"application/json": {"metrics": "$.b"}} == settings.decoding.formats


def test_a_command_needs_no_secret_of_servers_it_does_not_speak_to() -> None:
    """`sql` with the file of a cluster asks for the database's address alone; what it does speak to is still needed."""
    prod = Path(__file__).parents[2] / "infra" / "settings" / "prod.yaml"
    settings = load(prod, {"DATABASE_URL": "postgresql://db/ionwax"}, unused=["mqtt", "kafka"])
    assert settings.database.conninfo == "postgresql://db/ionwax"
    assert (settings.mqtt.clients, settings.mqtt.password) == (4, None)
    with pytest.raises(OperatorError, match="no DATABASE_URL"):
        load(prod, {}, unused=["mqtt", "kafka"])


def test_servers_in_the_environment_override_the_file(file: Path) -> None:
    """MQTT_URL, KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, as they are; empty ones override nothing."""
    text = "mqtt: {url: 'mqtt://file:1'}\ndatabase: {conninfo: '${NOWHERE}'}\n"
    environ = {"MQTT_URL": "mqtt://env:2", "KAFKA_BOOTSTRAP_SERVERS": "env:3", "DATABASE_URL": "host=${x} $${y} $z"}
    settings = read(file, text, environ)
    assert ("mqtt://env:2", "env:3") == (settings.mqtt.url, settings.kafka.bootstrap_servers)
    assert "host=${x} $${y} $z" == settings.database.conninfo
    assert "mqtt://file:1" == read(file, text, environ | {"MQTT_URL": ""}).mqtt.url


def test_the_port_of_metrics_may_come_from_the_environment(file: Path) -> None:
    """Flows that share a file need one each; there it is text, and still a number."""
    assert 9464 == read(file, "metrics: {port: 1}", {"METRICS_PORT": "9464"}).metrics.port
    with pytest.raises(OperatorError, match=r"metrics.port: expected a whole number"):
        read(file, "flow: {name: f}", {"METRICS_PORT": "many"})


def test_credentials_in_an_mqtt_url_move_to_where_no_log_looks(file: Path) -> None:
    """In the file or the environment, percent-encoded; username and password of the file go first."""
    settings = read(file, "flow: {name: f}", {"MQTT_URL": "mqtts://me:p%40ss%2F@broker:8883"})
    assert ("mqtts://broker:8883", "me", "p@ss/") == (
        settings.mqtt.url,
        settings.mqtt.username,
        settings.mqtt.password,
    )
    settings = read(file, "mqtt: {url: 'mqtt://me:url@[::1]:1883', password: file}")
    assert ("mqtt://[::1]:1883", "me", "file") == (settings.mqtt.url, settings.mqtt.username, settings.mqtt.password)


def test_yaml_conveniences_work(file: Path) -> None:
    """Anchors, merges and quotes are YAML's; times take whole numbers and fractions."""
    text = """
        windows: &w {quiet_secs: 1.5, allowed_lateness_secs: 3}
        database: {conninfo: "host=a"}
        kafka: {properties: &p {a: 1, b: true}}
        decoding: {formats: {x/y: {metrics: $.m}}}
        flow: {start: latest}
    """
    settings = read(file, text)
    assert (1.5, 3.0, "latest") == (
        settings.windows.quiet_secs,
        settings.windows.allowed_lateness_secs,
        settings.flow.start,
    )
    assert {"a": 1, "b": True} == settings.kafka.properties


def test_the_process_s_own_environment_is_used_in_one_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``load_settings`` is ``load`` with it."""
    monkeypatch.setenv("IONWAX_TEST_NAME", "from-the-environment")
    file.write_text("flow: {name: '${IONWAX_TEST_NAME}'}")
    assert "from-the-environment" == load_settings(file).flow.name


# What is refused

WRONG_NAMES = [
    ("windows: {allowed_latness_secs: 1}", "1: windows.allowed_latness_secs: no such setting; did you mean "
     "allowed_lateness_secs?"),
    ("window: {quiet_secs: 1}", "1: window: no such setting; did you mean windows?"),
    ("quiet_secs: 1", "1: quiet_secs: no such setting; did you mean windows.quiet_secs?"),
    ("mqtt: {partitions: 1}", "1: mqtt.partitions: no such setting; did you mean kafka.partitions?"),
    ("flow: {zzzzzz: 1}", "1: flow.zzzzzz: no such setting; there are name, start, epoch_interval_ms, progress"),
    ("flow: {1: x}", "1: flow.1: no such setting; there are name"),
    ("windows: {on: 1}", "1: windows.True: no such setting"),
    ("mqtt: {Url: x}", "1: mqtt.Url: no such setting; did you mean url?"),
]  # fmt: skip
WRONG_UNITS = [
    ("windows: {quiet_ms: 5000}", "1: windows.quiet_ms: no such setting; the unit is in the name: quiet_secs, "
     "here quiet_secs: 5"),
    ("windows: {length_minutes: 1}", "the unit is in the name: length_secs, here length_secs: 60"),
    ("windows: {length: 60}", "windows.length: no such setting; the unit is in the name: length_secs"),
    ("windows: {event_age_max_days: 7}", "in the name: event_age_max_secs, here event_age_max_secs: 604800"),
    ("flow: {epoch_interval_secs: 0.2}", "the unit is in the name: epoch_interval_ms, here epoch_interval_ms: 200"),
    ("flow: {epoch_interval: 200}", "the unit is in the name: epoch_interval_ms"),
    ("decoding: {payload_mb_max: 1}", "in the name: payload_bytes_max, here payload_bytes_max: 1048576"),
    ("kafka: {retention_days: 7}", "the unit is in the name: retention_hours, here retention_hours: 168"),
    ("windows: {quiet_ms: 5 s}", "the unit is in the name: quiet_secs"),
]  # fmt: skip
WRONG_VALUES = [
    ("windows:\n  quiet_secs: ten", "2: windows.quiet_secs: expected a number, got text"),
    ("windows: {quiet_secs: -1}", "windows.quiet_secs: expected a number >= 0"),
    ("windows: {quiet_secs: .nan}", "windows.quiet_secs: expected a number >= 0"),
    ("windows: {quiet_secs: .inf}", "windows.quiet_secs: expected a number <= "),
    ("windows: {patience_secs: 0}", "windows.patience_secs: expected a number >= 0.001"),
    ("windows: {length_secs: 60.5}", "windows.length_secs: expected a whole number, got a number"),
    ("windows: {length_secs: 7}", "windows: length_secs does not divide a day; 8 does"),
    ("windows: {quiet_secs: null}", "windows.quiet_secs: expected a number, got nothing"),
    ("windows: {quiet_secs: [1]}", "windows.quiet_secs: expected a number, got a list"),
    ("windows: {quiet_secs: true}", "windows.quiet_secs: expected a number, got true or false"),
    ("mqtt: {receive_max: 65536}", "mqtt.receive_max: expected a whole number <= 65535"),
    ("mqtt: {receive_max: 0}", "mqtt.receive_max: expected a whole number >= 1"),
    ("mqtt: {clients: '4'}", "mqtt.clients: expected a whole number, got text"),
    ("mqtt: {username: 5}", "mqtt.username: expected text; put the value in quotes"),
    ("mqtt: {client_id: 'a b'}", "mqtt.client_id: expected text matching"),
    ("mqtt: {url: ''}", "mqtt.url: expected text of length >= 1"),
    ("mqtt: {url: 'mqtt://[::1'}", "mqtt: url is none; it looks like mqtt://HOST:PORT"),
    ("mqtt: {cert_file: c.pem}", "mqtt: cert_file and key_file go together"),
    ("kafka: {properties: {a: [1]}}", "kafka.properties: expected a single value, got a list"),
    ("kafka: {properties: 5}", "kafka.properties: expected names with values, got a whole number"),
    ("kafka: {events_topic: a b}", "kafka.events_topic: expected text matching"),
    ("kafka: {event_headers: [device_id]}", "kafka.event_headers: give a list of some of device-id, schema-version, "),
    ("kafka: {event_headers: device-id}", "kafka.event_headers: give a list of some of"),
    ("kafka: {min_insync_replicas: 2}", "kafka: min_insync_replicas is above replication"),
    ("kafka: {partitions: 0}", "kafka.partitions: expected a whole number >= 1"),
    ("flow: {start: middle}", "flow.start: give one of earliest, latest"),
    ("flow: {name: 5}", "flow.name: expected text; put the value in quotes"),
    ("flow: {name: 2025-01-01}", "flow.name: expected text; put the value in quotes"),
    ("output: {table: 'a; drop'}", "output.table: expected text matching"),
    ("output: {topic: raw.events}", "output.topic is one of"),
    ("flow: 5", "flow: is a section; give its settings below it, indented"),
    ("flow: [name]", "flow: is a section; give its settings below it, indented"),
    ("mqtt: {password: '${NOPE}'}", "mqtt.password: the environment has no NOPE; set it before starting"),
    ("mqtt: {password: '${NO PE}'}", "mqtt.password: ${ begins a name of the environment"),
    ("mqtt: {clients: '${WORD}'}", "mqtt.clients: expected a whole number, got text"),
]  # fmt: skip
NO_FILES = [
    ("", "is empty; give at least one setting"),
    ("# only comments\n", "is empty; give at least one setting"),
    ("just words", "holds no sections"),
    ("- a\n- b", "holds no sections"),
    ("5", "holds no sections"),
    ("windows:\n  quiet_secs: 1\n  quiet_secs: 2", "3: not YAML: this key stands twice"),
    ("windows: {}\nmqtt: {}\nwindows: {}", "3: not YAML: this key stands twice"),
    ("windows: {quiet_secs: 1", "not YAML"),
    ("windows:\n\tquiet_secs: 1", "2: not YAML"),
    ("a: 1\n---\nb: 2", "not YAML"),
    ("mqtt: {url: {a: b}: c}", "not YAML"),
    (b"\xff\xfe\x00", "not YAML"),
    (b"mqtt: {url: '\xff'}", "not YAML"),
    ("mqtt: {url: '\x07'}", "not YAML"),
    ("a: " + "[" * 100_000, "not YAML"),
    ("#" * 1_048_577, "is no settings file: larger than"),
    ("mqtt: {url: !!python/object/apply:os.system ['false']}", "1: not YAML: could not determine a constructor"),
    ("mqtt: {url: !secret x}", "1: not YAML: could not determine a constructor"),
]  # fmt: skip
WRONG = WRONG_NAMES + WRONG_UNITS + WRONG_VALUES + NO_FILES


@pytest.mark.parametrize(("text", "words"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_file_is_answered_with_what_to_put_right(file: Path, text: str | bytes, words: str) -> None:
    """One line a mistake, with the place."""
    message = refusal(file, text, {"WORD": "word"})
    assert words in message
    assert message.count("\n") == 0


def test_all_mistakes_are_named_at_once(file: Path) -> None:
    """By line and path, in the order of the file."""
    text = "mqtt:\n  recieve_max: 1\n  clients: x\nwindows:\n  quiet_ms: 1\n  length_secs: y\nkafak: {}\n"
    lines = refusal(file, text).splitlines()
    assert ["2: mqtt.recieve_max", "3: mqtt.clients", "5: windows.quiet_ms", "6: windows.length_secs", "7: kafak"] == [
        ": ".join(line.split(": ")[:2]).strip() for line in lines
    ]


def test_a_missing_file_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    """Also a directory in its place."""
    with pytest.raises(OperatorError, match=r"nope\.yaml: no such settings file; there are .*demo\.yaml, .*dev\.yaml"):
        load(FILES / "nope.yaml", {})
    with pytest.raises(OperatorError, match=r"no such settings file\. infra/settings/demo\.yaml is one to copy\.$"):
        load(tmp_path / "nope.yaml", {})
    with pytest.raises(OperatorError, match="cannot be read"):
        load(tmp_path, {})


# Places where a secret may stand, right or wrong: in no message, whatever else is wrong with the file.
LEAKS = [
    f"mqtt: {{password: {SECRET}, nope: 1}}",
    f"mqtt: {{clients: {SECRET}}}",
    "mqtt: {clients: '${S}'}",
    f"mqtt: {SECRET}",
    f"mqtt: {{url: 'mqtt://u:{SECRET}@[broken'}}",
    f"mqtt: {{password: *{SECRET}}}",
    f"mqtt: {{password: !{SECRET} x}}",
    f"mqtt: {{password: %{SECRET}}}",
    f"mqtt: {{password: @{SECRET}}}",
    f"mqtt: {{password: '{SECRET}, username: x}}",
    f"mqtt:\n  password: {SECRET}: x\n",
    f"mqtt:\n  password: {SECRET}\n bad",
    f"flow: {{start: {SECRET}}}",
    f"output: {{table: '{SECRET} x'}}",
    f"kafka: {{properties: {{sasl.password: [{SECRET}]}}}}",
    f"kafka: {{properties: {SECRET}}}",
    f"decoding: {{formats: {{x: {SECRET}}}}}",
    f"windows: {{quiet_ms: {SECRET}}}",
    f"windows: {{nope: {SECRET}}}",
    f"database: {{conninfo: [postgresql://u:{SECRET}@h]}}",
    SECRET,
]


@pytest.mark.parametrize("text", LEAKS, ids=range(len(LEAKS)))
def test_no_message_repeats_a_value(file: Path, text: str) -> None:
    """Neither the message nor what Python would print of its causes."""
    message = refusal(file, text, {"S": SECRET})
    assert SECRET not in message
    code = "import sys; from schemas.settings_file import load; load(sys.argv[1], {'S': sys.argv[2]})"
    if text == LEAKS[2]:  # once, with the whole traceback of a process
        ended = subprocess.run([sys.executable, "-c", code, file, SECRET], capture_output=True, text=True, check=False)
        assert ended.returncode != 0
        assert SECRET not in ended.stderr


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"mqtt: {text}".encode(errors="replace")))
def test_any_bytes_are_settings_or_one_message(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No other exception, whatever stands in the file."""
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    with contextlib.suppress(OperatorError):
        read(file, content)
