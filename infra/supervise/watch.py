"""Whether a process that runs also works: its ``/ready``, asked now and then.

A process counts as stalled for as long as its epochs have not ended, or it has not answered: a deadlock, a frozen
machine and a SIGSTOP all look like that. One that waits for a server that is away says so, and is left alone for as
long as it means to wait: another in its place would wait too.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

ASK_SECS: Final = 2.0
ANSWER_SECS: Final = 5.0
ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Watch:
    """Asks in a thread of its own, from ``follow`` until ``close``. ``say`` hears when it gets ready, and when not."""

    def __init__(self, say: Callable[[str], None], ask_secs: float = ASK_SECS) -> None:
        self._say = say
        self._ask_secs = ask_secs
        self._seen_at = time.monotonic()  # when it was known to work last
        self._ready = False
        self.worked = False  # it was ready once
        self._address = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def follow(self, address: str) -> None:
        """The process serves its health at ``address``. Called once a process; more change nothing."""
        if not self._address:
            self._address = address
            self._thread.start()

    @property
    def stalled_secs(self) -> float:
        """For how long it has shown no sign of work; since it was started, where it never did."""
        return time.monotonic() - self._seen_at

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._ask_secs):
            asked_at = time.monotonic()
            try:
                report = ask(self._address)
            except (OSError, ValueError, http.client.HTTPException):
                continue  # it ends, or does not answer: stalled_secs grows
            if self._closed.is_set():
                return
            self._seen_at = max(self._seen_at, asked_at - (0.0 if waits(report) else report["epoch_age_secs"]))
            self._tell(report)

    def _tell(self, report: Mapping[str, Any]) -> None:
        if report["ready"] != self._ready:
            self._ready = report["ready"]
            self.worked = self.worked or self._ready
            self._say("ready" if self._ready else f"not ready: {'; '.join(report['reasons'])}")


def ask(address: str) -> dict[str, Any]:
    """What the process at ``address`` says of itself. Raises ``OSError`` and its like where it does not answer."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    connection = http.client.HTTPConnection(ANYWHERE.get(host, host), parts.port, timeout=ANSWER_SECS)
    try:
        connection.request("GET", "/ready")
        report: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return report


def waits(report: Mapping[str, Any]) -> bool:
    """Whether the process waits for a server, and still means to."""
    waiting = report["waiting"].values()
    return any(wait["at_most_secs"] is None or wait["secs"] <= wait["at_most_secs"] for wait in waiting)
