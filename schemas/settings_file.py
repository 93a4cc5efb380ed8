"""A settings file, read: YAML and the environment in, ``Settings`` or one message out.

    ${NAME}                                              is the environment's NAME; $${ is a plain ${
    MQTT_URL, KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL,
    METRICS_PORT                                         override what the file says

Rule: here alone the environment is read, and no value of it or of the file is ever repeated in a message; values can be
secrets. Guarantee: what is wrong is named by line and path, all of it at once.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints
from urllib.parse import unquote, urlsplit

import msgspec

from schemas.errors import OperatorError
from schemas.settings import Section, Settings
from schemas.settings_names import unknown
from schemas.yaml_file import Problem, in_words, message, read

OVERRIDES: Final[Mapping[str, tuple[str, str]]] = {
    "MQTT_URL": ("mqtt", "url"),
    "KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers"),
    "DATABASE_URL": ("database", "conninfo"),
    "METRICS_PORT": ("metrics", "port"),
}

_REFERENCE: Final = re.compile(r"\$(\$\{|\{([A-Za-z_][A-Za-z0-9_]*)\}|\{)")


def load_settings(path: str | Path) -> Settings:
    """The settings in the file ``path``, with this process's environment. Raises ``OperatorError``."""
    return load(path, os.environ)


def load(path: str | Path, environ: Mapping[str, str], unused: Collection[str] = ()) -> Settings:
    """The settings in the file ``path``, where ``environ`` is the environment. Raises ``OperatorError``.

    ``unused`` sections may name what the environment lacks: such a setting keeps its default.
    """
    document, lines = read(Path(path), "settings file", "infra/settings/demo.yaml")
    for name, (section, key) in OVERRIDES.items():
        if environ.get(name):
            section_of_file = document.setdefault(section, {})
            if isinstance(section_of_file, dict):
                section_of_file[key] = f"${{{name}}}"
    problems: list[Problem] = []
    for section in unused:
        if isinstance(given := document.get(section), dict):
            document[section] = {key: value for key, value in given.items() if not _lacks(value, environ)}
    settings = _section(Settings, (), document, environ, problems)
    if problems or settings is None:
        raise OperatorError(message(Path(path), problems, lines))
    assert isinstance(settings, Settings)
    return settings


def _section(
    kind: type[Section], path: tuple[str, ...], given: Any, environ: Mapping[str, str], problems: list[Problem]
) -> Section | None:
    """The section ``kind`` with what is ``given`` for it; None where ``problems`` grew."""
    if not isinstance(given, dict):
        problems.append(Problem(path, "is a section; give its settings below it, indented"))
        return None
    before = len(problems)
    values: dict[str, Any] = {}
    types = get_type_hints(kind, include_extras=True)
    for name, value in given.items():
        here = (*path, str(name))
        if name not in kind.__struct_fields__:
            problems.append(Problem(here, unknown(here, value)))
        elif isinstance(types[name], type) and issubclass(types[name], Section):
            values[name] = _section(types[name], here, value, environ, problems)
        else:
            values[name] = _value(types[name], here, value, environ, problems)
    if len(problems) > before:
        return None
    try:
        return kind(**_without_credentials(values) if path == ("mqtt",) else values)
    except ValueError as error:
        problems.append(Problem(path, str(error)))
        return None


def _value(kind: Any, path: tuple[str, ...], given: Any, environ: Mapping[str, str], problems: list[Problem]) -> Any:
    before = len(problems)
    value = _filled(given, path, environ, problems)
    if len(problems) > before:
        return None
    try:
        # What comes from the environment is text: there "4" may be a number.
        return msgspec.convert(value, kind, strict=value is given)
    except msgspec.ValidationError as error:
        problems.append(Problem(path, in_words(kind, error)))
        return None


def _filled(given: Any, path: tuple[str, ...], environ: Mapping[str, str], problems: list[Problem]) -> Any:
    """``given`` with each ``${NAME}`` in it replaced; the same object where there is none."""
    if isinstance(given, dict) and len(path) < 5:
        filled = {key: _filled(value, (*path, str(key)), environ, problems) for key, value in given.items()}
        return given if all(filled[key] is given[key] for key in given) else filled
    if not isinstance(given, str) or "${" not in given:
        return given

    def replacement(reference: re.Match[str]) -> str:
        if reference[1] == "${":
            return "${"
        if reference[2] is None:
            problems.append(Problem(path, "${ begins a name of the environment, as ${NAME}; write $${ for a plain ${"))
        elif reference[2] not in environ:
            problems.append(Problem(path, f"the environment has no {reference[2]}; set it before starting"))
        return environ.get(reference[2] or "", "")

    return _REFERENCE.sub(replacement, given)


def _lacks(given: Any, environ: Mapping[str, str]) -> bool:
    """Whether ``given`` names what the environment has not."""
    if isinstance(given, dict):
        return any(_lacks(value, environ) for value in given.values())
    return isinstance(given, str) and any(name and name not in environ for _, name in _REFERENCE.findall(given))


def _without_credentials(mqtt: dict[str, Any]) -> dict[str, Any]:
    """The section with ``user:password@`` of its url, if any, moved to username and password, where no logs look."""
    try:
        parts = urlsplit(mqtt.get("url") or "")
        host = parts.netloc.rpartition("@")[2]
        credentials = {"username": parts.username, "password": parts.password}
    except ValueError:
        raise ValueError("url is none; it looks like mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS") from None
    if parts.username is None and parts.password is None:
        return mqtt
    found = {key: unquote(text) for key, text in credentials.items() if text and mqtt.get(key) is None}
    return {**mqtt, "url": parts._replace(netloc=host).geturl(), **found}
