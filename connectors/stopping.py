"""Stopping a process well: on request it drains, on an operator's error it says one thing and ends.

Rule: the engine is never interrupted. SIGTERM and SIGINT set a flag; every source sees it, drains what it
owes (acknowledgements, a last commit) and ends its input, so the last epoch is written like any other.
(Bytewax by itself dies at once on SIGTERM and abruptly on SIGINT; FACTS.md.)
"""

import functools
import os
import signal
import sys
from collections.abc import Callable
from threading import Event
from types import FrameType, TracebackType
from typing import Final, NoReturn, ParamSpec, TypeVar

from schemas.errors import OperatorError

P = ParamSpec("P")
R = TypeVar("R")

EXIT_OPERATOR: Final = 78  # EX_CONFIG of sysexits.h: a restart alone will not help
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_requested = Event()


def requested() -> bool:
    """True once the process was asked to stop; sources then drain and raise ``StopIteration``."""
    return _requested.is_set()


def request() -> None:
    """Ask every source of this process to drain and stop. Safe from any thread; asking twice changes nothing."""
    _requested.set()


def forget() -> None:
    """Take the request back, for a test that runs several dataflows in one process."""
    _requested.clear()


def on_signals() -> None:
    """Turn the first SIGTERM or SIGINT into a request to stop; a second one ends the process at once."""
    for number in SIGNALS:
        signal.signal(number, _signalled)


def _signalled(number: int, _frame: FrameType | None) -> None:
    if requested():
        os._exit(128 + number)  # as kill -9, which loses nothing
    request()


def operator_error(error: BaseException | None) -> OperatorError | None:
    """The ``OperatorError`` at the root of ``error``, through the causes and contexts the engine wraps it in."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OperatorError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def one_message(factory: Callable[P, R]) -> Callable[P, R]:
    """Make a dataflow factory the entry point of its process: signals drain it, an ``OperatorError`` is one message.

    Without it an operator's mistake arrives as a Rust backtrace around a Python one. The message goes to
    standard error and the exit status is ``EXIT_OPERATOR``. Other exceptions keep their traceback.
    """

    @functools.wraps(factory)
    def entry(*args: P.args, **kwargs: P.kwargs) -> R:
        on_signals()
        sys.excepthook = _excepthook
        try:
            return factory(*args, **kwargs)
        except OperatorError as error:
            end_with(error)

    return entry


def end_with(error: OperatorError) -> NoReturn:
    """Say the message and end the process now, without unwinding the engine.

    To be called where nothing half-done can be left behind: an open transaction is rolled back by the server, and
    what was not acknowledged comes again.
    """
    print(f"ionwax: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(EXIT_OPERATOR)


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    known = operator_error(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
    else:
        end_with(known)
