"""The settings files that come with the house: one is the reference, the others say only what differs."""

import re
from pathlib import Path

import pytest
import yaml

from schemas.errors import OperatorError
from schemas.settings import Settings
from schemas.settings_file import load
from schemas.settings_names import setting_paths

FILES = Path(__file__).parents[2] / "infra" / "settings"


def test_the_reference_names_and_comments_every_setting_once() -> None:
    """demo.yaml is the documentation: all settings, with their defaults, a comment above each, and no other."""
    lines = (FILES / "demo.yaml").read_text().splitlines()
    document = yaml.safe_load("\n".join(lines))
    assert sorted(setting_paths()) == sorted((section, key) for section, keys in document.items() for key in keys)
    assert Settings() == load(FILES / "demo.yaml", {})
    keys = [number for number, line in enumerate(lines) if re.match(r"  [a-z_]+:", line)]
    assert len(keys) == len(list(setting_paths()))
    assert all(re.match(r"  # +\S", lines[number - 1]) for number in keys)


def test_dev_and_prod_say_only_what_differs() -> None:
    """Each names at least one setting, and none with its default; a few name what others may depend on."""
    same = {("mqtt", "url"), ("kafka", "bootstrap_servers"), ("database", "conninfo")}  # of dev: said to be seen
    default = Settings().to_builtins()
    for name in ("dev", "prod"):
        document = yaml.safe_load((FILES / f"{name}.yaml").read_text())
        said = {(section, key): value for section, keys in document.items() for key, value in keys.items()}
        assert said
        assert {path for path, value in said.items() if default[path[0]][path[1]] == value} <= same


def test_prod_takes_every_secret_from_the_environment() -> None:
    """With the names it asks for it loads, encrypted and with replicas; without, it says which are missing."""
    with pytest.raises(OperatorError) as caught:
        load(FILES / "prod.yaml", {})
    names = re.findall(r"the environment has no (\w+)", str(caught.value))
    assert {"MQTT_PASSWORD", "KAFKA_PASSWORD", "DATABASE_URL"} <= set(names)
    settings = load(FILES / "prod.yaml", dict.fromkeys(names, "mqtts://h"))
    assert "SASL_SSL" == settings.kafka.properties["security.protocol"]
    assert (3, 2) == (settings.kafka.replication, settings.kafka.min_insync_replicas)
