"""The tables ``devices`` and ``metrics``: brought to what a file says, in one transaction, and read.

Guarantee: importing a file twice changes nothing the second time; a row that does not change is not written, so that
no day is computed again for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from connectors import timescale_connection
from connectors.timescale_connection import Connection
from infra.devices.lines import DEVICE_COLUMNS, METRIC_COLUMNS, Device, Lines, Metric


class Changed(NamedTuple):
    """Rows that are new, changed, or as they were."""

    new: int
    changed: int
    same: int


def timezones(conninfo: str) -> frozenset[str]:
    """The time zones that the database knows by name."""
    names = "select name from pg_timezone_names where name !~ '^(posix|right)/' and is_timezone(name)"
    with timescale_connection.connect_or_say(conninfo, "ionwax devices") as connection:
        try:
            return frozenset(name for (name,) in connection.execute(names))
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or error from None


def bring(conninfo: str, lines: Lines) -> tuple[Changed, Changed]:
    """Bring the tables to ``lines``, all or nothing: what became of devices and of metrics."""
    with timescale_connection.connect_or_say(conninfo, "ionwax devices") as connection:
        try:
            with connection.transaction():
                return _bring_devices(connection, lines.devices), _bring_metrics(connection, lines.metrics)
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or error from None


def read(conninfo: str, site: str | None = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Devices, of one site or all, and metrics, in order of their names."""
    devices = 'select * from devices where %(site)s::text is null or site = %(site)s order by device_id collate "C"'
    metrics = 'select * from metrics order by device_id collate "C", metric collate "C"'
    with timescale_connection.connect_or_say(conninfo, "ionwax devices") as connection:
        try:
            with connection.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(devices, {"site": site}).fetchall(), cursor.execute(metrics).fetchall()
        except psycopg.Error as error:
            raise timescale_connection.operator_error(error) or error from None


def _bring_devices(connection: Connection, devices: Sequence[Device]) -> Changed:
    columns = [name for name in DEVICE_COLUMNS if devices and name in devices[0].said]
    query = sql.SQL(
        "insert into devices as d ({names}) values ({values}) on conflict (device_id) do update set {sets} "
        "where row ({olds}) is distinct from row ({news})"
    ).format(
        names=_each("{}", ["device_id", *columns, "labels"]),
        values=_each("%({})s", ["device_id", *columns, "labels"]),
        sets=sql.SQL(", ").join([*_all("{0} = excluded.{0}", columns), sql.SQL("labels = ") + _LABELS]),
        olds=_each("d.{}", [*columns, "labels"]),
        news=sql.SQL(", ").join([*_all("excluded.{}", columns), _LABELS]),
    )
    rows = [
        {
            "device_id": device.device_id,
            "labels": Jsonb({name: text for name, text in device.labels.items() if text is not None}),
            "removed": [name for name, text in device.labels.items() if text is None],
            **device.said,
        }
        for device in devices
    ]
    return _run(connection, "devices", query, rows)


def _bring_metrics(connection: Connection, metrics: Sequence[Metric]) -> Changed:
    columns = [name for name in METRIC_COLUMNS if metrics and name in metrics[0].said]
    update = "do update set {sets} where row ({olds}) is distinct from row ({news})" if columns else "do nothing"
    query = sql.SQL(
        "insert into metrics as m ({names}) values ({values}) on conflict (metric, device_id) " + update
    ).format(
        names=_each("{}", ["metric", "device_id", *columns]),
        values=_each("%({})s", ["metric", "device_id", *columns]),
        sets=_each("{0} = excluded.{0}", columns),
        olds=_each("m.{}", columns),
        news=_each("excluded.{}", columns),
    )
    rows = [{"metric": metric.metric, "device_id": metric.device_id, **metric.said} for metric in metrics]
    return _run(connection, "metrics", query, rows)


_LABELS: Final = sql.SQL("(d.labels - %(removed)s::text[]) || excluded.labels")


def _all(template: LiteralString, columns: Sequence[str]) -> list[sql.Composed]:
    """The template, filled in with each of the columns, which are names of our own."""
    return [sql.SQL(template).format(sql.SQL(column)) for column in columns]


def _each(template: LiteralString, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(_all(template, columns))


def _run(connection: Connection, table: str, query: sql.Composed, rows: Sequence[Mapping[str, Any]]) -> Changed:
    count = sql.SQL("select count(*) from {}").format(sql.Identifier(table))
    ((before,),) = connection.execute(count)
    touched = 0
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(query, rows)
            touched = cursor.rowcount
    ((after,),) = connection.execute(count)
    return Changed(after - before, touched - (after - before), len(rows) - touched)
