"""Whether the broker holds messages back for one client: the condition under which an ingest worker ticks.

A tick at ``ts`` says that all the broker had for this worker before ``ts`` has been received. The broker holds messages
back exactly while its window is full: as many are unacknowledged as it dares to have in flight. That number is its
own (mosquitto: ``max_inflight_messages``, rumqttd: 100) and may be far below our ``receive_maximum``, so "our receive
window is not full" says nothing: with a day's backlog behind them, 100 of 65,535 are in flight.

What can be known is a bound from below. ``proven`` is the most the broker has had in flight on this connection: its
window is at least that wide. A PINGREQ asks. Its PINGRESP comes behind all that was sent before it, and by then the
broker has seen the acknowledgements that went before the question. So at the answer

    in flight at the question + received since  =  what the broker had in flight when it answered,

and if that is less than ``proven``, the broker had room and nothing to put into it: at an instant after the question
there was no backlog. The tick takes the question's time. Under a backlog that number is the window's width: ``proven``.

A broker may answer a PINGREQ before it has refilled the room that acknowledgements made (rumqttd routes messages in
one thread and answers pings in another). So room made less than ``SETTLE_MS`` before the question counts as taken.

Where it errs: a window that shrinks within a connection (one counted in bytes, say), or one that is refilled later than
that (Artemis, on an overloaded machine), can let a worker tick that is behind. Its readings are then late and revise
their rows; nothing is lost. The other way round, epochs shorter than ``SETTLE_MS`` under steady load, or a load that
keeps the broker at its highest mark at every question, cannot be told from a backlog: ticks are withheld, and quiet or
patience close the windows.
"""

from typing import Final

SETTLE_MS: Final = 20


class Gauge:
    """Fed with what one connection receives, acknowledges and asks; answers whether the broker had room.

    Pure: no socket, no clock. One question may be open at a time. Times are ms.
    """

    def __init__(self) -> None:
        self.in_flight = 0  # received, an acknowledgement owed, not yet acknowledged
        self._proven = 1
        self._room_made = 0  # by acknowledgements of the last SETTLE_MS
        self._room_made_ms = 0
        self._asked_ms: int | None = None
        self._counted = 0  # what the broker has in flight as of the question, as far as the answer has come

    @property
    def asking(self) -> bool:
        return self._asked_ms is not None

    def received(self, count: int = 1) -> None:
        self.in_flight += count
        self._counted += count
        if self.in_flight > self._proven:
            self._proven = self.in_flight

    def acknowledged(self, count: int, now_ms: int) -> None:
        self.in_flight -= count
        self._room_made = self._recent_room(now_ms) + count
        self._room_made_ms = now_ms

    def ask(self, now_ms: int) -> None:
        """A PINGREQ goes out, behind every acknowledgement so far."""
        assert self._asked_ms is None, "one question at a time"
        self._asked_ms = now_ms
        self._counted = self.in_flight + self._recent_room(now_ms)

    def answer(self) -> int | None:
        """The PINGRESP came in: the time of the question if the broker had room then, else None."""
        assert self._asked_ms is not None, "an answer without a question"
        asked_ms, self._asked_ms = self._asked_ms, None
        return asked_ms if self._counted < self._proven else None

    def _recent_room(self, now_ms: int) -> int:
        return self._room_made if now_ms - self._room_made_ms < SETTLE_MS else 0
