"""Stopping a process well: on request it drains, on an operator's error it says one thing and ends.

Rule: the engine is never interrupted. SIGTERM and SIGINT set a flag; every source sees it, drains what it
owes (acknowledgements, a last commit) and ends its input, so the last epoch is written like any other.
(Bytewax by itself dies at once on SIGTERM and abruptly on SIGINT; FACTS.md.)
"""

import atexit
import functools
import inspect
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Timer
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn, ParamSpec, TypeVar, cast

from connectors import resting, wall_clock
from connectors.health import HEALTH
from schemas.errors import OperatorError, ServerAway

P = ParamSpec("P")
R = TypeVar("R")

EXIT_OPERATOR: Final = 78  # EX_CONFIG of sysexits.h: a restart alone will not help
EXIT_AWAY: Final = 69  # EX_UNAVAILABLE: a server is away; a restart helps as soon as it is back
EXIT_FAULT: Final = 70  # EX_SOFTWARE: a fault in the code, with a traceback; a restart goes on, and may meet it again
EXIT_STUCK: Final = 75  # EX_TEMPFAIL: a restart goes on where this process was
STOP_SECS_MAX: Final = 9.5  # from the request to stop to the end, also where a server is frozen
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_requested = Event()
_owns_process = Event()


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
    """Turn the first SIGTERM or SIGINT into a request to stop; a second one ends the process at once.

    A process that has not drained within ``STOP_SECS_MAX`` ends by itself, with ``EXIT_STUCK``; one that has, while a
    server is away that may have more for it, with ``EXIT_AWAY``.
    """
    for number in SIGNALS:
        signal.signal(number, _signalled)


def _signalled(number: int, _frame: FrameType | None) -> None:
    if requested():
        os._exit(128 + number)  # as kill -9, which loses nothing
    request()
    last = Timer(STOP_SECS_MAX, _give_up)
    last.daemon = True  # a process that has drained does not wait for it
    last.start()
    atexit.register(_tell_who_is_away)


def _tell_who_is_away() -> None:
    if away := ", ".join(HEALTH.report().waiting):
        end_with(ServerAway(f"stopped while {away} was away. All that was read is committed; start again any time."))


def _give_up() -> None:
    _say(
        f"ionwax: not drained {STOP_SECS_MAX:.0f} s after the request to stop: a server does not answer. Nothing is "
        "half-written; what was not committed or acknowledged comes again at the next start."
    )
    os._exit(EXIT_STUCK)


def _say(words: str) -> None:
    with suppress(OSError):  # whoever listened is gone, a supervisor that was killed: the process ends all the same
        print(words, file=sys.stderr, flush=True)


def one_message(factory: Callable[P, R]) -> Callable[P, R]:
    """Make a dataflow factory the entry point of its process: signals drain it, an ``OperatorError`` is one message.

    The message goes to standard error and the exit status is ``EXIT_OPERATOR``, or ``EXIT_AWAY``; other exceptions
    keep their traceback.
    """

    @functools.wraps(factory)
    def entry(*args: P.args, **kwargs: P.kwargs) -> R:
        on_signals()
        _owns_process.set()
        sys.excepthook = _tell_of_the_cluster
        _tell_times()
        wall_clock.watch()
        made = speaking(factory)(*args, **kwargs)
        resting.rest()  # of several workers none is this thread, which then only looks for signals
        return made

    return entry


def _tell_of_the_cluster(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One message where another process of the cluster is gone: the engine (0.21.1) panics in the threads between."""
    if kind.__name__ != "PanicException" or not str(error).startswith(("Send thread panic", "Recv thread panic")):
        sys.__excepthook__(kind, error, trace)
        return
    _say(
        "ionwax: another process of this cluster ended, and this one with it. Nothing is half-written; start all of it "
        "again, and it goes on where it was. Why the other one ended stands in its own log."
    )
    os._exit(EXIT_STUCK)


def _tell_times() -> None:
    """Let each line of the log begin with its time: how long something took is what is asked at night."""
    made = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    made.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(made)
    logging.basicConfig(handlers=[handler])  # does nothing where somebody has configured it


def speaking(call: Callable[P, R]) -> Callable[P, R]:
    """Decorate what the engine calls (``build_part``, ``next_batch``, ``snapshot``, a step): an ``OperatorError`` ends
    the process with its message, any other error with its traceback, where the process belongs to a dataflow; both are
    raised otherwise.

    The engine answers an exception with a Rust backtrace of forty lines around a Python one, or, in ``snapshot``, in
    place of it; no tired person reads that. So no error reaches it; of a generator, not while the engine iterates over
    it either.
    """

    @functools.wraps(call)
    def spoken(*args: P.args, **kwargs: P.kwargs) -> R:
        with _one_message():
            return call(*args, **kwargs)

    @functools.wraps(call)
    def spoken_while_iterated(*args: P.args, **kwargs: P.kwargs) -> Any:
        with _one_message():
            yield from cast(Iterator[object], call(*args, **kwargs))

    return spoken_while_iterated if inspect.isgeneratorfunction(call) else spoken


@contextmanager
def _one_message() -> Iterator[None]:
    try:
        yield
    except OperatorError as error:
        if not _owns_process.is_set():
            raise
        end_with(error)
    except Exception as error:
        if not _owns_process.is_set() or isinstance(error, StopIteration):
            raise
        _say("".join(traceback.format_exception(error)).rstrip())
        _end(EXIT_FAULT)


def end_with(error: OperatorError) -> NoReturn:
    """Say the message and end the process now, without unwinding the engine.

    Nothing half-done is left behind: an open transaction is rolled back by its server, and what was not acknowledged
    comes again.
    """
    _say(f"ionwax: {error}")
    _end(EXIT_AWAY if isinstance(error, ServerAway) else EXIT_OPERATOR)


def _end(status: int) -> NoReturn:
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(status)
