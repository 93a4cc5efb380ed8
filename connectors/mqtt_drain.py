"""The session of an ingest worker that is no longer wanted: emptied into the log, then ended.

Guarantee: a message is acknowledged after it was written and flushed, as ingest does it. The session ends when the
broker, asked behind everything, has nothing more for it, twice: subscribed, and after it was unsubscribed, so that
nothing new is given to it meanwhile. Where anything goes wrong the session stays, with all that was not acknowledged.

Where it ends: MQTT 5 lets a broker drop, at the UNSUBSCRIBE, what it had not begun to send (section 3.10.4); mosquitto
and Artemis do not.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from connectors.mqtt_address import Address
from connectors.mqtt_connection import Connection, wall_clock_ms
from connectors.mqtt_inbox import Inbox
from connectors.mqtt_packets import Publishes
from connectors.mqtt_publish import Publish
from schemas.arrivals import Arrivals, Tick
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

ASK_SECS: Final = 0.25
BACKLOG_SECS: Final = 0.5  # how long a resumed session may take to give out what waited
STEP_SECS: Final = 0.02
INBOX_BYTES_MAX: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of a worker's session: whether there was one, and how many messages it held."""

    worker: str
    present: bool
    messages: int


class SessionDrain:
    """Drains the session of ``worker``. ``write`` makes messages durable, and blocks until they are."""

    def __init__(
        self, settings: MqttSettings, worker: str, address: Address, write: Callable[[Sequence[Arrivals]], None]
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._address = address
        self._write = write
        self._inbox = Inbox(worker, receive_max=settings.receive_max, size_bytes_max=INBOX_BYTES_MAX)
        self._connection = Connection(settings, worker, address, self)
        self._present = False
        self._messages = 0

    async def run(self, context: ssl.SSLContext | None, topic_filter: str) -> Drained:
        """Empty the session and end it. Raises ``Refused``, or ``OperatorError`` where another process has it."""
        emptied = False
        lost = asyncio.ensure_future(self._connection.lost())
        try:
            await self._connection.open(context)
            if self._present:
                await asyncio.sleep(BACKLOG_SECS)
                await self._empty(lost)
                await asyncio.wait({self._connection.forget(topic_filter), lost}, return_when=asyncio.FIRST_COMPLETED)
                await self._empty(lost)
            emptied = True
        finally:
            await self._connection.close(end_session=emptied)
            await asyncio.wait({lost})
            lost.exception()  # looked at: it was told already
        return Drained(self._worker, self._present, self._messages)

    async def _empty(self, lost: "asyncio.Future[None]") -> None:
        """Receive, write and acknowledge until the broker says that it has nothing more."""
        asked_at, caught_up, loop = 0.0, False, asyncio.get_running_loop()
        while True:
            if lost.done():
                raise self._taken_back()
            if not caught_up and not self._inbox.gauge.asking and loop.time() - asked_at > ASK_SECS:
                asked_at = loop.time()
                self._inbox.gauge.ask(wall_clock_ms())
                self._connection.ask()
            items = self._inbox.take()
            caught_up = caught_up or any(isinstance(item, Tick) for item in items)
            arrivals = [item for item in items if isinstance(item, Arrivals)]
            if arrivals:
                await asyncio.to_thread(self._write, arrivals)
                self._messages += sum(map(len, arrivals))
            self._inbox.snapshot()
            if (acknowledgement := self._inbox.flushed()) is not None:
                packet_ids = self._inbox.confirm(acknowledgement, wall_clock_ms())
                if packet_ids:
                    self._connection.acknowledge(packet_ids)
                self._connection.resume()
            if caught_up and not arrivals and self._inbox.drained:
                return
            await asyncio.sleep(STEP_SECS)

    def _taken_back(self) -> OperatorError:
        return OperatorError(
            f"MQTT broker at {self._address}: the connection of {self._worker} was lost while its session was drained. "
            "If an ingest with this client id still runs, stop it; then drain again. Nothing is lost: what was not "
            "acknowledged is still in the session."
        )

    # Events of the connection.

    def on_connect(self, *, session_present: bool) -> None:
        self._present = session_present
        self._inbox.connect(session_present=session_present)

    def on_publish(self, message: Publish) -> None:
        self._inbox.receive(message, wall_clock_ms())

    def on_publishes(self, messages: Publishes) -> None:
        self._inbox.receive_all(messages, wall_clock_ms())
        if self._inbox.over_full:
            self._connection.pause()

    def on_answer(self) -> None:
        self._inbox.answered()
