"""The process between us and a server: it starts the server, waits for it, and outlives nobody.

Run as a script with one JSON argument; standard library only, so that it starts in milliseconds.

Rule: one keeper, one thread, one server. It watches the process that started it by its id (a parent-death
signal alone would not do: that one fires when the *thread* that forked ends, is cleared by a change of
user, and exists only on Linux) and stops the server when that process is gone. The server in turn is
killed by the kernel when its keeper is killed, where the kernel can.

Guarantee: after the parent has died by any means, the server is asked to stop within TICK_SECS and killed
`grace_secs` later. The exit code is the server's, or 128 + n where signal n ended it.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

TICK_SECS = 0.25
_PR_SET_PDEATHSIG = 1


def _before_exec(spec: dict[str, Any]) -> Callable[[], None]:
    """What the forked child does before it becomes the server: change user, then bind its life to ours.

    Safe although it runs between fork and exec, because the keeper has a single thread.
    """
    keeper_pid = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def prepare() -> None:
        if spec["uid"] is not None:
            os.setgroups([])
            os.setgid(spec["gid"])
            os.setuid(spec["uid"])
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after setuid, which would clear it
        if os.getppid() != keeper_pid:
            os._exit(1)

    return prepare


def _serve(spec: dict[str, Any]) -> int:
    before_exec = _before_exec(spec)
    for name in spec["without"]:
        os.environ.pop(name, None)
    for argv in spec["prepare"]:
        code = subprocess.run(argv, preexec_fn=before_exec, check=False).returncode
        if code != 0:
            return code if code > 0 else 128 - code
    server = subprocess.Popen(spec["argv"], preexec_fn=before_exec)  # noqa: PLW1509 (one thread)
    ticks_until_kill = -1

    def ask_to_stop(*_: object) -> None:
        nonlocal ticks_until_kill
        if ticks_until_kill < 0:
            ticks_until_kill = int(spec["grace_secs"] / TICK_SECS)
            server.send_signal(spec["stop_signal"])

    def tick(*_: object) -> None:
        nonlocal ticks_until_kill
        if os.getppid() != spec["parent"]:
            ask_to_stop()
        if ticks_until_kill >= 0:
            ticks_until_kill -= 1
            if ticks_until_kill <= 0:
                server.kill()

    # Killed by its keeper, a server is also reaped here: when the keeper has ended, nothing is left of it.
    signal.signal(signal.SIGUSR1, lambda *_: server.kill())
    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, TICK_SECS, TICK_SECS)
    code = server.wait()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_serve(json.loads(sys.argv[1])))
