"""An MQTT source in a dataflow of its own, with a sink that writes down what was durable when.

The sink is a real Bytewax sink: what it was given counts as durable when its ``snapshot`` has returned, as with Kafka.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import cluster_main

from connectors import stopping
from connectors.mqtt import MqttSource
from schemas.arrivals import Arrivals, Tick
from schemas.settings import MqttSettings

DEADLINE_SECS = 90.0
RUNS_SECS_MAX = 900.0  # should whoever lets it run be gone
EPOCH = timedelta(milliseconds=50)


@dataclass
class Ledger:
    """What sinks have flushed, payloads and ticks in their order."""

    durable: list[bytes | Tick] = field(default_factory=list)
    flush_secs: float = 0.0  # how long each flush takes
    failed: BaseException | None = None  # what ended the flow, where that was not a request

    def messages(self) -> list[bytes]:
        return [item for item in self.durable if isinstance(item, bytes)]

    def await_messages(self, count: int) -> None:
        self._until(lambda: len({*self.messages()}) >= count, lambda: f"{len(self.messages())} of {count} messages")

    def await_tick(self) -> None:
        """Wait for a tick from now on."""
        before = len(self.durable)
        self._until(lambda: any(isinstance(item, Tick) for item in self.durable[before:]), lambda: "no tick")

    def _until(self, condition: Callable[[], object], said: Callable[[], str]) -> None:
        until(lambda: self.failed is not None or condition(), said)
        if self.failed is not None:
            raise self.failed


class DurableSink(FixedPartitionedSink[Arrivals | Tick, None]):
    def __init__(self, settings: MqttSettings, ledger: Ledger) -> None:
        self._workers = list(settings.workers)
        self._ledger = ledger

    def list_parts(self) -> list[str]:
        return self._workers

    def part_fn(self, item_key: str) -> int:
        return sorted(self._workers).index(item_key)

    def build_part(self, _step_id: str, _for_part: str, _resume_state: None) -> "DurablePart":
        return DurablePart(self._ledger)


class DurablePart(StatefulSinkPartition[Arrivals | Tick, None]):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._unflushed: list[bytes | Tick] = []

    def write_batch(self, values: list[Arrivals | Tick]) -> None:
        for value in values:
            self._unflushed += [value] if isinstance(value, Tick) else value.payloads

    def snapshot(self) -> None:
        time.sleep(self._ledger.flush_secs)
        self._ledger.durable += self._unflushed
        self._unflushed = []


def run(settings: MqttSettings, topic_filter: str, ledger: Ledger, beside: Callable[[], object] | None = None) -> None:
    """Run until ``beside`` has returned and the source has drained. Raises what either raised, as it was raised."""
    stopping.forget()
    failures: list[BaseException] = []

    def then_stop() -> None:
        try:
            if beside is not None:
                beside()
        except BaseException as error:
            failures.append(error)
        finally:
            stopping.request()

    flow = Dataflow("mqtt_flow")
    arrivals = op.input("mqtt", flow, MqttSource(settings, topic_filter))
    op.output("out", op.key_on("worker", arrivals, lambda item: item.worker), DurableSink(settings, ledger))
    thread = threading.Thread(target=then_stop)
    thread.start()
    try:
        cluster_main(flow, [], 0, worker_count_per_proc=settings.clients, epoch_interval=EPOCH)
    except BytewaxRuntimeError as error:
        ledger.failed = error.__cause__ or error
        raise ledger.failed from None
    finally:
        thread.join(DEADLINE_SECS)
        stopping.forget()
    if failures:
        raise failures[0]


def until(condition: Callable[[], object], said: Callable[[], str]) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + DEADLINE_SECS
    while not condition():
        assert time.monotonic() < deadline, said()
        threading.Event().wait(0.005)


@contextmanager
def running(settings: MqttSettings, topic_filter: str, ledger: Ledger) -> Iterator[None]:
    """Run beside the body of the ``with``; when it ends, drain and stop."""
    done = threading.Event()
    failures: list[BaseException] = []

    def in_thread() -> None:
        try:
            run(settings, topic_filter, ledger, lambda: done.wait(RUNS_SECS_MAX))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(DEADLINE_SECS)
    assert not thread.is_alive(), "the dataflow did not stop"
    if failures:
        raise failures[0]
