"""Settings as values: what they show, and what they refuse."""

import pytest

from schemas.settings import DatabaseSettings, KafkaSettings, MqttSettings, OutputSettings, Settings, WindowSettings

SECRET = "hunter2-ÿ"
CONNINFOS = [
    f"postgresql://ionwax:{SECRET}@db:5432/ionwax",
    f"postgresql://ionwax:{SECRET}@ss/{SECRET}@db/ionwax",
    f"postgresql://db/ionwax?user=ionwax&password={SECRET}&sslmode=require",
    f"host=db password={SECRET} user=ionwax",
    f"host=db password = '{SECRET} \\' {SECRET}' user=ionwax",
    f"host=db PASSWORD='{SECRET}",
    f"host=db sslpassword={SECRET}",
]
PROPERTIES = ["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "sasl.jaas.config"]
HOLDING = [
    MqttSettings(password=SECRET),
    MqttSettings(url=f"mqtt://me:{SECRET}@broker"),
    *(DatabaseSettings(conninfo=conninfo) for conninfo in CONNINFOS),
    *(KafkaSettings(properties={name: SECRET}) for name in PROPERTIES),
]


@pytest.mark.parametrize("section", HOLDING, ids=range(len(HOLDING)))
def test_no_form_for_people_shows_a_secret(section: MqttSettings | DatabaseSettings | KafkaSettings) -> None:
    """repr, str, format and redacted, of the section and of the settings that hold it."""
    kind = {MqttSettings: "mqtt", DatabaseSettings: "database", KafkaSettings: "kafka"}[type(section)]
    settings = Settings(**{kind: section})
    assert SECRET in str(settings.to_builtins())
    for shown in (
        repr(section),
        str(section),
        f"{section}",
        repr(settings),
        str(settings.redacted()),
        repr([settings]),
    ):
        assert "hunter2" not in shown
        assert "(hidden)" in shown


def test_what_is_no_secret_is_shown() -> None:
    """Hosts, users and databases help to see what is wrong."""
    shown = repr(DatabaseSettings(conninfo=f"postgresql://ionwax:{SECRET}@db:5432/ionwax?sslmode=require"))
    assert "postgresql://ionwax:(hidden)@db:5432/ionwax?sslmode=require" in shown
    assert "host=db password=(hidden) user=ionwax" in repr(
        DatabaseSettings(conninfo=f"host=db password={SECRET} user=ionwax")
    )
    assert "'security.protocol': 'SASL_SSL'" in repr(KafkaSettings(properties={"security.protocol": "SASL_SSL"}))


def test_workers_are_named_by_their_clients() -> None:
    """Stable names: they are session ids, and stand in ticks."""
    assert ("w-0", "w-1") == MqttSettings(client_id="w", clients=2).workers


@pytest.mark.parametrize(("length_secs", "near"), [(7, "8"), (0, "1"), (3_601, "3600"), (50_000, "43200")])
def test_windows_divide_a_day(length_secs: int, near: str) -> None:
    """So that they begin at midnight, every day; the nearest length that does is named."""
    with pytest.raises(ValueError, match=f"length_secs does not divide a day; {near} does"):
        WindowSettings(length_secs=length_secs)


def test_settings_that_contradict_each_other_are_refused() -> None:
    """Also where no file is read."""
    with pytest.raises(ValueError, match="cert_file and key_file go together"):
        MqttSettings(cert_file="cert.pem")
    with pytest.raises(ValueError, match="min_insync_replicas is above replication"):
        KafkaSettings(min_insync_replicas=2)
    with pytest.raises(ValueError, match="events_topic and dead_letter_topic are one"):
        KafkaSettings(events_topic="t", dead_letter_topic="t")
    with pytest.raises(ValueError, match=r"output\.topic is one of"):
        Settings(output=OutputSettings(topic="raw.events"))
