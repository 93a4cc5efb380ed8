"""`./justw devices`: what a file says is in the tables; what is wrong with it is said by line, and nothing is done."""

import io
from pathlib import Path

import psycopg
import pytest

from infra.devices import lines, store
from infra.devices.__main__ import main
from infra.devices.store import Changed
from infra.migrations import migrate
from schemas.errors import OperatorError

pytestmark = [pytest.mark.embedded, pytest.mark.contract]

ZONES = frozenset({"UTC", "Europe/Oslo", "Europe/Berlin", "Asia/Kathmandu"})
FLEET = """device_id,site,timezone,latitude,longitude,label.floor,label.owner,metric,unit,cf_name
boiler-7,Bergen,Europe/Oslo,60.39,5.32,2,"Kari, Ola",,,
🌡,,,,,,,,,
,,,,,,,temperature,degC,air_temperature
boiler-7,,,,,,,pressure,kPa,
"""


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "devices.csv"
    path.write_bytes(text.encode(encoding))
    return path


def bring(conninfo: str, path: Path) -> tuple[Changed, Changed]:
    return store.bring(conninfo, lines.read(path, store.timezones(conninfo)))


def test_a_file_is_imported_once_and_comes_back(database_url: str, tmp_path: Path) -> None:
    """Everything it says is there; again it changes nothing; exported and imported elsewhere it is the same."""
    migrate(database_url)
    assert bring(database_url, written(tmp_path, FLEET)) == (Changed(2, 0, 0), Changed(2, 0, 0))
    assert bring(database_url, written(tmp_path, FLEET)) == (Changed(0, 0, 2), Changed(0, 0, 2))
    devices, metrics = store.read(database_url)
    assert devices[0] == {
        "device_id": "boiler-7",
        "site": "Bergen",
        "timezone": "Europe/Oslo",
        "latitude": 60.39,
        "longitude": 5.32,
        "labels": {"floor": "2", "owner": "Kari, Ola"},
    }
    assert {(m["metric"], m["device_id"], m["unit"], m["cf_name"]) for m in metrics} == {
        ("temperature", "", "degC", "air_temperature"),
        ("pressure", "boiler-7", "kPa", None),
    }
    out = io.StringIO()
    lines.write(out, devices, metrics)
    with psycopg.connect(database_url) as connection:
        connection.execute("delete from devices; delete from metrics")
    bring(database_url, written(tmp_path, out.getvalue()))
    assert store.read(database_url) == (devices, metrics)


def test_only_what_the_file_names_changes(database_url: str, tmp_path: Path) -> None:
    """A column that is not there stays; an empty cell empties; other labels stay."""
    migrate(database_url)
    bring(database_url, written(tmp_path, FLEET))
    change = "device_id,site,label.floor\nboiler-7,,3\n🌡,,\nkettle,Oslo,\n"
    assert bring(database_url, written(tmp_path, change))[0] == Changed(1, 1, 1)
    boiler = store.read(database_url)[0][0]
    assert (boiler["site"], boiler["timezone"], boiler["labels"]) == (
        None,
        "Europe/Oslo",
        {"floor": "3", "owner": "Kari, Ola"},
    )
    assert bring(database_url, written(tmp_path, "device_id,label.owner\nboiler-7,\n"))[0] == Changed(0, 1, 0)
    assert store.read(database_url)[0][0]["labels"] == {"floor": "3"}


WRONG = {
    "device_id,timezone\na,Europe/Berln": "2: timezone: 'Europe/Berln' is no time zone; did you mean Europe/Berlin?",
    "device_id,timezone\na,+02:00": "2: timezone: '+02:00' is no time zone",
    "device_id,latitude,longitude\na,91,0": "2: latitude: 91 is not within",
    'device_id,latitude,longitude\na,"60,4",5': "2: latitude: '60,4' is not a number; write 60.4",
    "device_id,latitude,longitude\na,nan,5": "2: latitude: nan is not within",
    "device_id,latitude,longitude\na,60,": "2: latitude: goes with longitude",
    "device_id,sight\na,x": "1: sight: no such column; did you mean site?",
    "device_id,site,site\na,x,y": "1: site: stands twice",
    "site\nx": "1: names neither device_id nor metric",
    "device_id,site\n,x": "2: names neither a device_id nor a metric",
    "device_id,site\na,x\nb\n": "3: has 1 cells, and the header names 2",
    "device_id,site\na,x\n\na,y\n": "4: a: stands in line 2 already",
    "device_id,site,metric,unit\na,x,t,degC": "2: site: is of a device, and this line is of a metric",
    "device_id,metric,unit\na,,degC": "2: unit: is of a metric, and this line names none",
    "metric,cf_name\nt,Air Temperature": "2: cf_name: 'Air Temperature' is no CF standard name",
    "device_id\na\tb": "2: device_id:",
    'device_id,site\na,"x': "not CSV",
    "": "1: is empty",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_by_line(tmp_path: Path, text: str) -> None:
    """And what to write instead, where that is known."""
    path = written(tmp_path, text)
    with pytest.raises(OperatorError) as caught:
        lines.read(path, ZONES)
    assert f"{path}:" in str(caught.value)
    assert WRONG[text] in str(caught.value)


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_imported(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty lines of it at most."""
    migrate(database_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    settings = tmp_path / "settings.yaml"
    settings.write_text(f'database: {{conninfo: "{database_url}"}}')
    path = written(tmp_path, "device_id,timezone\ngood,UTC\n" + "".join(f"d{i},Nowhere\n" for i in range(30)))
    with pytest.raises(OperatorError) as caught:
        main(["import", str(path), "--settings", str(settings)])
    assert len(str(caught.value).splitlines()) == 1 + 20 + 1
    assert str(caught.value).endswith("and 10 more")
    assert store.read(database_url) == ([], [])


WITH_SEMICOLONS = FLEET.replace(",", ";").replace("Kari;", "Kari,")


@pytest.mark.parametrize(("text", "encoding"), [(FLEET, "utf-8-sig"), (WITH_SEMICOLONS, "utf-8")])
def test_files_as_spreadsheets_write_them_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    """With a byte order mark, or with semicolons."""
    found = lines.read(written(tmp_path, text, encoding), ZONES)
    assert [device.device_id for device in found.devices] == ["boiler-7", "🌡"]
    assert found.devices[0].labels == {"floor": "2", "owner": "Kari, Ola"}
    assert [metric.metric for metric in found.metrics] == ["temperature", "pressure"]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """One message, no traceback."""
    with pytest.raises(OperatorError, match="UTF-8"):
        lines.read(written(tmp_path, "device_id\nkjøkken\n", "latin-1"), ZONES)
    with pytest.raises(OperatorError, match="cannot be read"):
        lines.read(tmp_path / "absent.csv", ZONES)
