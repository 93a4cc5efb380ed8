"""A second process with our client id, found out where the broker does not say so.

A broker gives a session to whoever connects last. MQTT 5 has it tell the earlier one why (0x8E); mosquitto 2.0.11 and
rumqttd only hang up, so two copies take turns for ever. Losing connections proves nothing by itself: broker, network or
a proxy may be at fault. What proves it is a *witness*: a connection of another client id beside ours. Where ours is
lost, again and again, while the witness is answered, it is our client id that is fought over.

Rule: the younger copy gives way. A connection is lost by one and the other in turn, so one of them reaches its limit
first; that of a process which had the session for long is twice as high. The other one then goes on undisturbed.
"""

import asyncio
import secrets
import ssl
from contextlib import suppress
from typing import Final

import msgspec

from connectors.mqtt_address import Address
from connectors.mqtt_connection import Connection, Refused
from connectors.mqtt_packets import Publishes
from connectors.mqtt_publish import Publish
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

STEADY_SECS: Final = 30.0  # longer than any pause between attempts: nobody fights over a connection that lasts so long
WITNESSED_MAX: Final = 3  # losses in a row that a witness survived
ANSWER_SECS: Final = 2.0


class _Nobody:
    """Takes notice of nothing; the witness subscribes to nothing."""

    def on_connect(self, *, session_present: bool) -> None: ...
    def on_publish(self, message: Publish) -> None: ...
    def on_publishes(self, messages: Publishes) -> None: ...
    def on_answer(self) -> None: ...


class Rival:
    """Told of each connection that ``worker`` lost; raises ``Refused`` once another process must be the cause."""

    def __init__(self, settings: MqttSettings, worker: str, address: Address) -> None:
        self._settings = msgspec.structs.replace(settings, session_expiry_secs=1)
        self._worker = worker
        self._address = address
        self._witness: Connection | None = None
        self._limit = WITNESSED_MAX
        self._witnessed = 0
        self._quickly = 0  # lost in a row, each soon after it was made

    async def lost(self, lasted_secs: float, context: ssl.SSLContext | None) -> None:
        """A connection that had been accepted was lost, without a reason given."""
        if lasted_secs >= STEADY_SECS:
            self._limit = 2 * WITNESSED_MAX
            await self.calm()
            return
        self._quickly += 1
        if self._witness is not None:
            if await self._witness.answers(ANSWER_SECS):
                self._witnessed += 1
            else:
                await self.calm()
        if self._witnessed >= self._limit:
            await self.calm()
            raise Refused(self._found_out(), transient=False)
        if self._witness is None and self._quickly > 1:
            await self._call_witness(context)

    async def calm(self) -> None:
        """Something else explains it, or it is over: the broker is away, the process stops."""
        self._quickly = self._witnessed = 0
        witness, self._witness = self._witness, None
        if witness is not None:
            await witness.close()

    async def _call_witness(self, context: ssl.SSLContext | None) -> None:
        name = f"{self._worker}-witness-{secrets.token_hex(4)}"  # the other process has one too
        witness = Connection(self._settings, name, self._address, _Nobody())
        with suppress(Refused, TimeoutError):  # away, or another client id is not let in: then nothing can be proven
            await asyncio.wait_for(witness.open(context), ANSWER_SECS)
            self._witness = witness
            return
        await witness.close()

    def _found_out(self) -> OperatorError:
        return OperatorError(
            f"MQTT broker at {self._address}: {self._worker} lost {self._limit} connections within seconds each, while "
            "another one beside it lasted. Another process uses the same client id: run one ingest with one "
            "mqtt.client_id. This one stops; what it had not acknowledged goes to the other. If there is no other, the "
            "broker's log says why it cuts this client off."
        )
