"""MQTT as a Bytewax source: what it hands out is acknowledged to the broker once it is durable, and not before.

    MqttSource ─(Arrivals | Tick)…─▶ decode ─▶ a sink whose ``snapshot`` flushes

Guarantee: at least once, from PUBACK on. A message is acknowledged after the epoch that carried it was flushed at every
sink: Bytewax calls the first ``next_batch`` after a ``snapshot`` only then (FACTS.md). A process that dies has
acknowledged nothing that it had not written; the broker sends the rest again, marked DUP.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors import resting, stopping
from connectors.health import HEALTH
from connectors.mqtt_client import MqttClient
from connectors.stopping import speaking
from schemas.arrivals import Arrivals, Tick
from schemas.settings import MqttSettings

POLL_MS_MIN: Final = 1
POLL_MS_MAX: Final = 32  # the most that an idle source adds to the latency of a message
POLL_OWING_MS_MAX: Final = 4  # while an epoch is awaited, whose acknowledgements make room for more


class MqttSource(FixedPartitionedSource[Arrivals | Tick, None]):
    """One part an MQTT client, named as the client is: a fixed number, whatever the number of Bytewax workers.

    ``topic_filter`` is an MQTT filter; with more than one client the subscription is shared among them.
    ``workers`` are those of this process, all where none are given.
    """

    def __init__(self, settings: MqttSettings, topic_filter: str, workers: Sequence[str] | None = None) -> None:
        self._settings = settings
        self._workers = settings.workers if workers is None else workers
        shared = f"$share/{settings.share_name}/{topic_filter}"
        self._topic_filter = shared if settings.clients > 1 else topic_filter

    def list_parts(self) -> list[str]:
        return list(self._workers)

    @speaking
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "MqttPart":  # noqa: ARG002
        """Connect. Raises ``OperatorError`` where the broker is away or refuses."""
        resting.rouse()  # for the client's thread, which inherits it
        HEALTH.built(for_part)
        client = MqttClient(self._settings, for_part, self._topic_filter)
        client.start()
        HEALTH.opened(for_part)
        return MqttPart(client, for_part)


class MqttPart(StatefulSourcePartition[Arrivals | Tick, None]):
    """The dataflow's end of one MQTT client."""

    def __init__(self, client: MqttClient, worker: str) -> None:
        self._client = client
        self._worker = worker
        self._poll_ms = POLL_MS_MIN
        self._owing = False  # something was handed out that no flush has followed yet
        self._epoch_ended = False
        self._drained = False

    @speaking
    def next_batch(self) -> Iterable[Arrivals | Tick]:
        """All that has arrived. The first call after a ``snapshot`` acknowledges what was before it.

        Asked to stop it drains; with the broker away, or where it does not answer to the end, it hands out and flushes
        what it has, then raises ``OperatorError``.
        """
        if self._epoch_ended:
            self._epoch_ended = self._owing = False
            self._client.flushed()
        if self._drained:
            raise StopIteration
        if stopping.requested() and self._client.drain():
            if not self._client.connected and self._owing:
                return []  # one more call comes when the epoch is flushed
            # Bytewax does not call again after StopIteration, so the last acknowledgements are sent before it.
            if not self._client.connected or not self._client.close():
                raise self._client.away
            self._drained = True
            return []
        items = self._client.take()
        (resting.rouse if items else resting.rest)()
        self._owing = self._owing or bool(items)
        slowest_ms = POLL_OWING_MS_MAX if self._owing else POLL_MS_MAX
        self._poll_ms = POLL_MS_MIN if items else min(2 * self._poll_ms, slowest_ms)
        return items

    def next_awake(self) -> datetime | None:
        return resting.next_look(self._poll_ms)

    def snapshot(self) -> None:
        self._client.snapshot()
        self._epoch_ended = True
        HEALTH.epoch_ended(self._worker)

    def close(self) -> None:
        HEALTH.closed(self._worker)
        self._client.close()
