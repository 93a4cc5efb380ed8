"""What ``python -m bytewax.run`` was told: how long an epoch lasts, which process of a cluster this is.

An epoch can last milliseconds, which the engine's command line can say in whole seconds only. It matters because
acknowledgements go out once an epoch: a broker that lets 100 messages be in flight (rumqttd; mosquitto by default 20)
passes 100 messages an epoch, so a second is far too long.
"""

import sys
from datetime import timedelta
from typing import Any


def last(interval_ms: int) -> None:
    """Let epochs last ``interval_ms`` where ``python -m bytewax.run`` runs this dataflow; ``-s`` is then ignored.

    Call it from the dataflow's factory. bytewax.run (0.21.1) gathers what it will start the engine with in a global
    of its main module, calls the factory, and starts; nothing of the engine is touched. Elsewhere, as in a test or
    under ``bytewax.run.cli_main``, the caller says how long an epoch lasts, and this does nothing.
    """
    if (arguments := _arguments()) is not None:
        arguments["epoch_interval"] = timedelta(milliseconds=interval_ms)


def process_index() -> int:
    """Which process of its cluster this is (``-i``); 0 where it is alone."""
    return (_arguments() or {}).get("process_id") or 0


def together_ms() -> int | None:
    """How often a part that has caught up looks where several workers end an epoch together; None for one alone.

    A part whose next look is due while it waits for another worker to end the epoch makes the engine spin (0.21.1,
    src/inputs.rs). So all look at the same moments, a little more than an epoch apart: each look ends an epoch, in all
    of them, and none is due in between.
    """
    arguments = _arguments() or {}
    if not arguments.get("addresses") and (arguments.get("workers_per_process") or 1) == 1:
        return None
    interval: timedelta = arguments["epoch_interval"]
    return max(1, round(1.25 * (interval / timedelta(milliseconds=1))))


def _arguments() -> dict[str, Any] | None:
    main: Any = sys.modules.get("__main__")
    arguments = getattr(main, "kwargs", None)
    ours = getattr(getattr(main, "__spec__", None), "name", None) == "bytewax.run" and isinstance(arguments, dict)
    return arguments if ours else None
