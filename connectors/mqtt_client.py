"""One MQTT client in a thread of its own: it keeps a connection, feeds the inbox and sends what is acknowledged.

Rule: two threads meet in the inbox, under one lock. The thread of the event loop connects, receives and acknowledges;
the dataflow's takes, and says what is durable. What to do is the inbox's to know; here is only when.

Guarantee: a broker that is away is waited for, with growing pauses; nothing is lost by it, since what was not
acknowledged comes again. What waiting cannot heal (password, access rules, a second copy) ends the flow with a message.
"""

import asyncio
import logging
import random
import threading
from importlib import metadata
from typing import Final

from connectors import mqtt_address
from connectors.mqtt_connection import LAST_ANSWER_SECS_MAX, Connection, Refused, wall_clock_ms
from connectors.mqtt_inbox import Acknowledgement, Inbox
from connectors.mqtt_meter import MqttMeter
from connectors.mqtt_outage import Outage
from connectors.mqtt_packets import Publishes
from connectors.mqtt_publish import Publish
from connectors.mqtt_queue import say_bearing
from connectors.mqtt_rival import Rival
from connectors.mqtt_wire import TappedLoop
from schemas.arrivals import Arrivals, Tick
from schemas.errors import OperatorError, ServerAway
from schemas.settings import MqttSettings

log = logging.getLogger("ionwax.mqtt")

PAUSE_SECS_MIN: Final = 0.25  # between attempts to connect; doubles
# Well below windows.quiet_secs: what the first client to be back hands over goes quiet while the last one still waits.
PAUSE_SECS_MAX: Final = 4.0
STEADY_SECS: Final = 5.0  # a connection that lasted as long was a good one
SUBSCRIBE_ATTEMPTS_MAX: Final = 5  # at the start of a process; later there is no end to them
CLOSE_SECS_MAX: Final = LAST_ANSWER_SECS_MAX + 2.0
BACKLOG_SECS: Final = 0.5  # how long a resumed session may take to give out what waited (Artemis: 3 to 200 ms)
INBOX_BYTES_MAX: Final = 256 * 1024 * 1024  # received and not acknowledged, per client


class MqttClient:
    """Client ``worker``, subscribed to ``topic_filter`` with QoS 1 and a session that outlives it."""

    def __init__(self, settings: MqttSettings, worker: str, topic_filter: str) -> None:
        self._settings = settings
        self._worker = worker
        self._topic_filter = topic_filter
        self._address = mqtt_address.read_address(settings.url)
        self._inbox = Inbox(worker, receive_max=settings.receive_max, size_bytes_max=INBOX_BYTES_MAX)
        self._meter = MqttMeter(self._inbox)
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._subscribed = False
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._connection: Connection | None = None
        self._ticked_ms = 0
        self._bearing: asyncio.Future[None] | None = None
        self._opened = False  # the broker has let this connection in
        self._subscribe_attempts = 0
        self._outage = Outage(self._address, worker)
        self._rival = Rival(settings, worker, self._address)
        self._thread = threading.Thread(target=self._run, name=worker, daemon=True)

    # For the dataflow's thread.

    def start(self) -> None:
        """Connect and subscribe. Raises ``OperatorError`` if that cannot be done at once."""
        mqtt_address.check_credentials(self._settings)
        self._context = mqtt_address.tls_context(self._settings, self._address)
        self._thread.start()
        self._started.wait()
        self._raise_failure()

    def take(self) -> list[Arrivals | Tick]:
        """What waits here, a slice at a time. Raises ``OperatorError`` where the client had to give up."""
        self._raise_failure()
        with self._lock:
            return self._inbox.take()

    def snapshot(self) -> None:
        """All that was taken so far belongs to an epoch that ends now."""
        with self._lock:
            self._inbox.snapshot()

    def flushed(self) -> None:
        """Every epoch that has ended is durable: acknowledge what it carried."""
        with self._lock:
            acknowledgement = self._inbox.flushed()
        if acknowledgement is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._acknowledge, acknowledgement)

    def drain(self) -> bool:
        """Take in nothing more; True once all that was received is acknowledged, or cannot be any more."""
        self._raise_failure()
        with self._lock:
            self._inbox.close()
            return self._inbox.drained

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the broker, as far as is known."""
        with self._lock:
            return self._inbox.connected

    @property
    def away(self) -> OperatorError:
        """What to say to whoever asked to stop, where there is no connection, or no answer on it."""
        return ServerAway(
            f"Asked to stop while the MQTT broker at {self._address} is away. Nothing is lost: what {self._worker} had "
            "received is flushed, and what it could not acknowledge comes again at the next start."
        )

    def close(self) -> bool:
        """Send what is written, disconnect, end the thread; whether the broker has read all. The session stays."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(CLOSE_SECS_MAX)
        return self._connection is not None and self._connection.answered_last

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # For the event loop's thread.

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=TappedLoop) as runner:
                runner.run(self._keep_connected())
        except Refused as refused:
            self._failure = refused.error
        except Exception as error:
            self._failure = error
        finally:
            with self._lock:
                self._inbox.disconnect()
            self._meter.ended()
            self._loop = None
            self._started.set()

    async def _keep_connected(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        stop = asyncio.ensure_future(self._stopping.wait())
        pause_secs, short_lived = PAUSE_SECS_MIN, 0
        while not self._stopping.is_set():
            begun = self._loop.time()
            serving = asyncio.ensure_future(self._serve_once())
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await self._leave(serving)
                await self._rival.calm()
                return
            self._meter.down()
            if (away := self._why_away(serving)) is None:
                lasted_secs = self._loop.time() - begun
                short_lived = short_lived + 1 if lasted_secs < STEADY_SECS else 0
                self._outage.lost(short_lived)
                await self._rival.lost(lasted_secs, self._context)
                pause_secs = min(PAUSE_SECS_MIN * 2**short_lived, PAUSE_SECS_MAX)
            else:
                await self._rival.calm()
                self._outage.lasts(away)
            await asyncio.wait({stop}, timeout=pause_secs * random.uniform(0.5, 1))
            pause_secs = min(2 * pause_secs, PAUSE_SECS_MAX)

    def _why_away(self, serving: "asyncio.Task[None]") -> OperatorError | None:
        """Why an attempt to connect failed, None where it succeeded and was lost. Raises what waiting cannot heal."""
        error = serving.exception()
        if error is None:
            return None
        if isinstance(error, Refused) and error.transient and (self._started.is_set() or self._may_subscribe_again()):
            return error.error
        raise error

    def _may_subscribe_again(self) -> bool:
        """Whether a start that was let in, and then cut off at its SUBSCRIBE, is worth another attempt.

        Artemis (2.55) cuts clients off that make the same shared subscription in the same instant.
        """
        self._subscribe_attempts += 1
        return self._opened and self._subscribe_attempts < SUBSCRIBE_ATTEMPTS_MAX

    async def _leave(self, serving: "asyncio.Task[None]") -> None:
        serving.cancel()
        await asyncio.wait({serving})

    async def _serve_once(self) -> None:
        """One connection, from CONNECT until it is lost. Raises ``Refused``."""
        connection = self._connection = Connection(self._settings, self._worker, self._address, self)
        self._opened = False
        try:
            await connection.open(self._context)
            self._opened = True
            if self._session_present:
                # The SUBACK may have to wait for room in the broker's window: let what waited be taken meanwhile.
                self._started.set()
            if not self._subscribed or not self._session_present:
                # At the start of a process also into a session that is present: the filter may be a new one.
                await connection.subscribe(self._topic_filter, backlog=self._session_present)
                self._subscribed = True
            log.info("MQTT broker at %s: %s receives %s", self._address, self._worker, self._topic_filter)
            if not connection.by_wire:
                log.warning(
                    "gmqtt %s connects by a way of its own: %s receives at half speed, and cannot pause reading. "
                    "Install gmqtt==0.8.0, as locked.",
                    metadata.version("gmqtt"),
                    self._worker,
                )
            self._meter.up()
            self._started.set()
            self._outage.over()
            asking = asyncio.ensure_future(self._ask_for_ticks(connection))
            if self._bearing is None:
                saying = say_bearing(self._settings, self._worker, lambda: self._inbox.received)
                self._bearing = asyncio.ensure_future(saying)
            try:
                await connection.lost()
            finally:
                asking.cancel()
        finally:
            with self._lock:
                self._inbox.disconnect()
            await connection.close()

    async def _ask_for_ticks(self, connection: Connection) -> None:
        """Ask whether the broker holds anything back, until it says no, each ``tick_secs``."""
        quarter_secs = self._settings.tick_secs / 4
        if self._session_present:
            await asyncio.sleep(BACKLOG_SECS)
        while True:
            now_ms = wall_clock_ms()
            with self._lock:
                gauge = self._inbox.gauge
                due = not gauge.asking and abs(now_ms - self._ticked_ms) >= 875 * self._settings.tick_secs
                if due:
                    gauge.ask(now_ms)
            if due:
                connection.ask()
            await asyncio.sleep(quarter_secs)

    def _acknowledge(self, acknowledgement: Acknowledgement) -> None:
        with self._lock:
            packet_ids = self._inbox.confirm(acknowledgement, wall_clock_ms())
            over_full = self._inbox.over_full
        if self._connection is not None:
            if packet_ids:
                self._connection.acknowledge(packet_ids)
            if not over_full:
                self._connection.resume()

    # Events of the connection.

    def on_connect(self, *, session_present: bool) -> None:
        self._session_present = session_present
        with self._lock:
            self._inbox.connect(session_present=session_present)

    def on_publish(self, message: Publish) -> None:
        with self._lock:
            self._inbox.receive(message, wall_clock_ms())

    def on_publishes(self, messages: Publishes) -> None:
        with self._lock:
            self._inbox.receive_all(messages, wall_clock_ms())
            over_full = self._inbox.over_full
        if over_full and self._connection is not None:
            self._connection.pause()

    def on_answer(self) -> None:
        with self._lock:
            ticked_ms = self._inbox.answered()
        if ticked_ms is not None:
            self._ticked_ms = ticked_ms
