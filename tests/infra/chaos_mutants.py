"""Dataflows whose protocol is broken on purpose: ``python -m tests.infra.chaos_mutants NAME`` in place of
``python -m bytewax.run``.

Each breaks one rule that exactly-once rests on, and nothing else; chaos that stays green under one proves little.
"""

import runpy
import sys
from collections.abc import Callable
from typing import Any

from connectors import mqtt_client, resuming, sealing, timescale


def commit_before_flush() -> None:
    """The database is committed first, and what tells of it is flushed afterwards."""
    seal = sealing.SealingPart._seal

    def unflushed(writer: Any, transaction: Any, pending: Any) -> Any:
        return writer.write(transaction, pending.items, pending.counts)

    def seal_then_flush(self: Any, pending: Any) -> None:
        seal(self, pending)
        self._writer.flush()

    sealing._write = unflushed
    sealing.SealingPart._seal = seal_then_flush  # type: ignore[method-assign]


def acknowledge_before_flush() -> None:
    """PUBACK as soon as a message was taken, as most MQTT bridges do."""
    take = mqtt_client.MqttClient.take

    def take_and_acknowledge(self: Any) -> Any:
        taken = take(self)
        self.snapshot()
        self.flushed()
        return taken

    mqtt_client.MqttClient.take = take_and_acknowledge  # type: ignore[method-assign]


def no_fence() -> None:
    """Progress is moved by whoever comes."""
    condition = "and generation = %(generation)s and position = %(before)s"
    assert condition in timescale._FENCE, "the fence has changed: so must its mutant"
    timescale._FENCE = timescale._FENCE.replace(condition, "")  # type: ignore[misc]


def no_anchor() -> None:
    """Records are taken for those on record by their offsets alone."""
    assert callable(resuming._refuse_other_records)
    resuming._refuse_other_records = lambda *_: None


def no_identity() -> None:
    """A topic is taken for the one on record by its name alone: at the start, by the claim, and by its last record."""
    assert callable(resuming._refuse_other_topic)
    resuming._refuse_other_topic = lambda *_: None
    for row in ("progress", "excluded"):
        assert f"({row}.topic_id, " in timescale._CLAIM, "the claim has changed: so must its mutant"
        timescale._CLAIM = timescale._CLAIM.replace(f"({row}.topic_id, ", "(")  # type: ignore[misc]
    no_anchor()


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (commit_before_flush, acknowledge_before_flush, no_fence, no_anchor, no_identity)
}


if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
    del sys.argv[1]
    runpy.run_module("bytewax.run", run_name="__main__", alter_sys=True)
