"""How a wrong window core is made: a copy of the package under another name, some of its lines replaced.

The right one beside it stays whole.
"""

import importlib.util
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import dataflows.windowing
from tests.dataflows.windowing.replay import MakeCore

PACKAGE = "dataflows.windowing"
HOUSE = Path(dataflows.windowing.__file__).parent
_numbers = itertools.count()


class Mutant(NamedTuple):
    """What is wrong, the lines that make it so (module, right, wrong), and the law that sees it."""

    wrong: str
    edits: Sequence[tuple[str, str, str]]
    law: str = "oracle"


def core_of(mutant: Mutant) -> MakeCore:
    """The mutant's ``Windows``. Every edit must be found exactly once: the core may not move on without its mutants."""
    sources = {path.stem: path.read_text() for path in HOUSE.glob("*.py")}
    for module, right, wrong in mutant.edits:
        assert sources[module].count(right) == 1, f"{module} holds {right!r} {sources[module].count(right)} times"
        sources[module] = sources[module].replace(right, wrong)
    name = f"_mutant_{next(_numbers)}"
    return _loaded(name, {stem: source.replace(PACKAGE, name) for stem, source in sources.items()}).Windows  # type: ignore[no-any-return]


class _Finder:
    """Imports the modules of one mutant from their edited sources."""

    def __init__(self, name: str, sources: Mapping[str, str]) -> None:
        self._sources = {f"{name}.{stem}" if stem != "__init__" else name: text for stem, text in sources.items()}
        self._name = name

    def find_spec(self, name: str, _path: object, _target: object = None) -> object:
        if name not in self._sources:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=name == self._name)  # type: ignore[arg-type]

    def create_module(self, _spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._sources[module.__name__], f"<{module.__name__}>", "exec"), module.__dict__)


def _loaded(name: str, sources: Mapping[str, str]) -> ModuleType:
    finder = _Finder(name, sources)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
