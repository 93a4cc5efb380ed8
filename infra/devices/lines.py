"""A CSV file of devices and metrics: each line checked, all that is wrong said at once, with its line.

    device_id,site,timezone,latitude,longitude,label.floor,metric,unit,cf_name
    boiler-7,Bergen,Europe/Oslo,60.39,5.32,2,,,
    ,,,,,,temperature,degC,air_temperature
    boiler-7,,,,,,pressure,kPa,air_pressure

A line with a ``metric`` says its unit and its name by the CF conventions: for every device, or for the ``device_id``
that it names. A line without one describes a device. Columns that are not there are left as they are in the database;
an empty cell empties what is there.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TextIO

from dataflows.decoding.names import flaw_in
from schemas.errors import OperatorError

DEVICE_COLUMNS: Final = ("site", "timezone", "latitude", "longitude")
METRIC_COLUMNS: Final = ("unit", "cf_name")
COLUMNS: Final = ("device_id", *DEVICE_COLUMNS, "metric", *METRIC_COLUMNS)
LABEL: Final = "label."
PROBLEMS_SHOWN_MAX: Final = 20
FILE_BYTES_MAX: Final = 64 * 2**20
TEXT_CHARS_MAX: Final = 256
_CF_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")  # https://cfconventions.org, "Construction of standard names"
_BOUNDS: Final = {"latitude": 90.0, "longitude": 180.0}


@dataclass(frozen=True, slots=True)
class Device:
    """What a line says of a device. Of ``said`` only columns of the file; a label without text is to be removed."""

    device_id: str
    said: Mapping[str, Any]
    labels: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """What a line says of a metric; ``device_id`` is empty where it holds for every device."""

    metric: str
    device_id: str
    said: Mapping[str, Any]


@dataclass
class Lines:
    """A file's lines, checked."""

    devices: list[Device] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)


def read(path: Path, timezones: frozenset[str]) -> Lines:
    """The lines of ``path``. ``timezones`` are those the database knows. Raises ``OperatorError`` for all problems."""
    text = _text(path)
    delimiter = ";" if ";" in text.partition("\n")[0] and "," not in text.partition("\n")[0] else ","
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    made = _Reading(path, timezones)
    line = 1
    try:
        for cells in reader:
            made.take(line, [cell.strip() for cell in cells])
            line = reader.line_num + 1
    except csv.Error as error:
        made.wrong(line, "", f"not CSV: {error}")
    if made.header is None:
        made.wrong(1, "", f"is empty; its first line names columns: {','.join(COLUMNS)}")
    if made.problems:
        more = len(made.problems) - PROBLEMS_SHOWN_MAX
        said = [*made.problems[:PROBLEMS_SHOWN_MAX], *([f"and {more} more"] if more > 0 else [])]
        raise OperatorError("nothing was imported:\n" + "\n".join(said))
    return made.lines


def write(out: TextIO, devices: Iterable[Mapping[str, Any]], metrics: Iterable[Mapping[str, Any]]) -> None:
    """Devices (``labels`` among their columns) and metrics as a file that ``read`` takes."""
    devices = list(devices)
    labels = sorted({name for device in devices for name in device["labels"]})
    header = ["device_id", *DEVICE_COLUMNS, *(f"{LABEL}{name}" for name in labels), "metric", *METRIC_COLUMNS]
    rows = csv.DictWriter(out, header, restval="", lineterminator="\n")
    rows.writeheader()
    for device in devices:
        labelled = {f"{LABEL}{name}": text for name, text in device["labels"].items()}
        rows.writerow({name: device[name] for name in ("device_id", *DEVICE_COLUMNS)} | labelled)
    for metric in metrics:
        rows.writerow({name: metric[name] for name in ("device_id", "metric", *METRIC_COLUMNS)})


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise OperatorError(f"{path} is larger than {FILE_BYTES_MAX >> 20} MB: import it in parts.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise OperatorError(f"{path} is not UTF-8: save it as “CSV UTF-8”.") from None
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.") from None


class _Reading:
    """Takes line after line, and keeps what is wrong with them."""

    def __init__(self, path: Path, timezones: frozenset[str]) -> None:
        self.lines = Lines()
        self.problems: list[str] = []
        self.header: Sequence[str] | None = None
        self._header_is_wrong = False
        self._path = path
        self._timezones = timezones
        self._seen: dict[tuple[str, str], int] = {}  # metric and device → line

    def wrong(self, line: int, column: str, words: str) -> None:
        self.problems.append(": ".join(filter(None, (f"{self._path}:{line}", column, words))))

    def take(self, line: int, cells: Sequence[str]) -> None:
        if self.header is None:
            self.header = cells
            self._check_header(line, cells)
            self._header_is_wrong = bool(self.problems)
        elif not any(cells):
            return
        elif len(cells) != len(self.header):
            self.wrong(line, "", f"has {len(cells)} cells, and the header names {len(self.header)} columns")
        elif not self._header_is_wrong:
            self._take_row(line, dict(zip(self.header, cells, strict=True)))

    def _check_header(self, line: int, names: Sequence[str]) -> None:
        for name in names:
            if name not in COLUMNS and not (name.startswith(LABEL) and len(name) > len(LABEL)):
                near = get_close_matches(name, COLUMNS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COLUMNS)} and {LABEL}NAME"
                self.wrong(line, name or "a column without a name", f"no such column; {hint}")
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.wrong(line, name, "stands twice")
        if "device_id" not in names and "metric" not in names:
            self.wrong(line, "", "names neither device_id nor metric: there is nothing to say anything of")

    def _take_row(self, line: int, row: Mapping[str, str]) -> None:
        before = len(self.problems)
        metric, device_id = row.get("metric", ""), row.get("device_id", "")
        if not metric and not device_id:
            self.wrong(line, "", "names neither a device_id nor a metric")
        for column, name in (("device_id", device_id), ("metric", metric)):
            if name and (flaw := flaw_in(name)):
                self.wrong(line, column, flaw)
        first = self._seen.setdefault((metric, device_id), line)
        if first != line:
            self.wrong(line, metric or device_id, f"stands in line {first} already")
        foreign = [
            name
            for name, cell in row.items()
            if cell and (name in METRIC_COLUMNS if not metric else name in DEVICE_COLUMNS or name.startswith(LABEL))
        ]
        for name in foreign:
            is_of = "a device, and this line is of a metric" if metric else "a metric, and this line names none"
            self.wrong(line, name, f"is of {is_of}")
        said = dict(self._said(line, row, METRIC_COLUMNS if metric else DEVICE_COLUMNS))
        if len(self.problems) > before:
            return
        if metric:
            self.lines.metrics.append(Metric(metric, device_id, said))
        else:
            labels = {name.removeprefix(LABEL): cell or None for name, cell in row.items() if name.startswith(LABEL)}
            self.lines.devices.append(Device(device_id, said, labels))

    def _said(self, line: int, row: Mapping[str, str], columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """The cells of ``columns`` as values; None where empty."""
        for name in columns:
            if name in row:
                try:
                    yield name, self._value(name, row[name]) if row[name] else None
                except ValueError as error:
                    self.wrong(line, name, str(error))
        if bool(row.get("latitude")) != bool(row.get("longitude")):
            self.wrong(line, "latitude", "goes with longitude: say both or none")

    def _value(self, name: str, cell: str) -> Any:
        if name in _BOUNDS:
            return _degrees(cell, _BOUNDS[name])
        if name == "timezone" and cell not in self._timezones:
            near = get_close_matches(cell, self._timezones, n=1)
            raise ValueError(f"{cell!r} is no time zone; {f'did you mean {near[0]}?' if near else _ZONES}")
        if name == "cf_name" and not _CF_NAME.fullmatch(cell):
            raise ValueError(f"{cell!r} is no CF standard name: lower case and underscores, as air_temperature")
        if len(cell) > TEXT_CHARS_MAX or not cell.isprintable():
            raise ValueError(f"text of at most {TEXT_CHARS_MAX} characters that can be printed")
        return cell


_ZONES: Final = "write a name of the IANA database, as Europe/Oslo"


def _degrees(cell: str, bound: float) -> float:
    try:
        value = float(cell)
    except ValueError:
        hint = f"; write {cell.replace(',', '.')}" if "," in cell else ""
        raise ValueError(f"{cell!r} is not a number{hint}") from None
    if not math.isfinite(value) or abs(value) > bound:
        raise ValueError(f"{cell} is not within -{bound:.0f} and {bound:.0f} degrees")
    return value
