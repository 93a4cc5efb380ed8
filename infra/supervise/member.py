"""One process of a dataflow, and a keeper between it and us (``infra.embedded.keeper``).

Guarantee: when the supervisor dies by any means, kill -9 included, the keeper asks the process to drain, and kills it
after its grace; when the keeper is killed, the kernel kills the process. Every line it says is passed on, prefixed.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from infra.embedded import keeper
from infra.supervise.layout import Process
from infra.supervise.watch import Watch

GRACE_SECS: Final = 12.0  # a process drains within connectors.stopping.STOP_SECS_MAX, or ends by itself
LAST_WORDS_SECS: Final = 5.0
SERVES: Final = re.compile(r"\S+: metrics and health on (http://\S+)")


class Member:
    """A running process. ``say`` hears its lines, and what is found out about it."""

    def __init__(self, process: Process, environ: Mapping[str, str], say: Callable[[str, str], None]) -> None:
        self.name = process.name
        self._say = say
        self.watch = Watch(lambda words: say(self.name, f"supervisor: {words}"))
        spec = {
            "parent": os.getpid(),
            "argv": [sys.executable, *process.argv],
            "prepare": [],
            "uid": None,
            "gid": None,
            "stop_signal": int(signal.SIGTERM),
            "grace_secs": GRACE_SECS,
            "without": [],
        }
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(keeper.__file__)), json.dumps(spec)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
        )
        self._reader = threading.Thread(target=self._read, name=self.name, daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + n where signal n ended it."""
        code = self._keeper.poll()
        if code == -signal.SIGUSR1:
            return 128 + signal.SIGKILL  # our `kill` reached the keeper as it began or ended; its process died with it
        return code if code is None or code >= 0 else 128 - code

    def ask_to_stop(self) -> None:
        """SIGTERM: drain, commit, end. Its keeper kills it after ``GRACE_SECS``."""
        self.watch.close()
        if self._keeper.poll() is None:
            self._keeper.terminate()

    def kill(self) -> None:
        """As kill -9: nothing is lost by it, since what was not committed comes again."""
        self.watch.close()
        if self._keeper.poll() is None:
            self._keeper.send_signal(signal.SIGUSR1)

    def hear_out(self) -> None:
        """Its last words, once it has ended."""
        self.watch.close()
        self._reader.join(LAST_WORDS_SECS)

    def _read(self) -> None:
        assert self._keeper.stdout is not None
        with self._keeper.stdout as lines:
            for line in lines:
                words = line.decode("utf-8", "replace").rstrip("\n")
                if (serves := SERVES.match(words)) is not None:
                    self.watch.follow(serves[1])
                self._say(self.name, words)
