"""The resuming source: reads partitions of a log from where the database says (``connectors.checkpoint``).

Guarantee: a partition is read by whoever claimed it last, from its ``resume`` on, without a gap; a log that is not
the one on record (made again, cut off, deleted by retention, with more partitions) is refused with one message,
before anything is claimed, so that a wrong start never disturbs a process that runs.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors import epochs, resting, stopping
from connectors.checkpoint import Log, LogReader, ProgressStore, Standing
from connectors.health import HEALTH
from connectors.metering import LogMeter
from connectors.share import read_share
from connectors.stopping import speaking
from schemas.errors import OperatorError
from schemas.log import LogBatch
from schemas.progress import Anchor, Claim, Progress

logger = logging.getLogger("ionwax.checkpoint")

IDLE_MS_MIN: Final = 2
IDLE_MS_MAX: Final = 50  # asking an empty partition 20 times a second costs nothing that can be seen


class ResumingSource(FixedPartitionedSource[Claim | LogBatch, None]):
    """Of each partition first its ``Claim``, then its ``LogBatch``es; when it comes to rest, empty ones.

    ``start``, "earliest" or "latest", is where a partition begins that has no progress. ``share`` "i/n" takes
    partitions p with p % n == i, for independent processes side by side. An empty batch (``start == end``) follows each
    of ``settle_secs``, ascending, after the last one came: it carries what the sink could let wait. When the process is
    asked to stop the input ends.
    """

    def __init__(
        self,
        log: Log,
        store: ProgressStore,
        start: str = "earliest",
        share: str = "0/1",
        settle_secs: Sequence[float] = (10.0,),
    ) -> None:
        if start not in ("earliest", "latest"):
            raise OperatorError(f'flow.start is "{start}"; it can be "earliest" or "latest".')
        self._log = log
        self._store = store
        self._start = start
        self._share = read_share(share)
        self._settle_secs = settle_secs
        self._parts: list[str] | None = None
        self._total = 0
        self.topic: Final = log.topic
        self._built: dict[int, list[ResumingPart]] = {}  # worker's thread → its partitions, not claimed yet

    @speaking
    def list_parts(self) -> list[str]:
        """Names of the partitions of this share. Asked once, so that every step of a process means the same."""
        if self._parts is None:
            mine, of = self._share
            found = self._log.partitions()
            self._total = len(found)
            self._parts = [str(partition) for partition in found if partition % of == mine]
            if not self._parts:
                raise OperatorError(
                    f"Topic {self._log.topic} has {self._total} partitions: none for share {mine}/{of}."
                )
        return self._parts

    @speaking
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "ResumingPart":  # noqa: ARG002
        part = ResumingPart(self, int(for_part), self._settle_secs)
        self._built.setdefault(threading.get_ident(), []).append(part)
        return part

    def open(self) -> None:
        """Claim what this worker was given, in one transaction: of two copies started at once one gets all.

        Called at the first ``next_batch``: the engine has built all partitions of a worker by then.
        """
        parts = {part.partition: part for part in self._built.pop(threading.get_ident(), [])}
        topic_id = self._log.identity()
        begins = self._checked(topic_id, sorted(parts))
        claims = self._store.claim(self._log.topic, topic_id, self._total, begins)
        for partition, part in parts.items():
            claim = claims[partition]
            part.opened(claim, self._log.reader(partition, claim.progress.resume))
        logger.info("claimed %s of %s for flow %s", sorted(parts), self._log.topic, self._store.flow)

    def check(self, claim: Claim, since: float) -> None:
        """Refuse what was read until ``since`` where the topic was made again under us: it may be of another log."""
        if not self._log.is_still(claim.topic_id, since):
            raise OperatorError(
                f"Topic {claim.topic} was deleted and made again while flow {claim.flow} read it: what was read since "
                f"the last commit can be of the new one. {_go_on(self._log, claim.flow, ' --at beginning')}"
            )

    def _checked(self, topic_id: str, partitions: list[int]) -> dict[int, int]:
        """Where each partition would begin, after its progress was compared with the log."""
        standing = self._store.standing(self._log.topic)
        begins = {}
        for partition in partitions:
            bounds = self._log.bounds(partition)
            begins[partition] = bounds[0] if self._start == "earliest" else bounds[1]
            if (found := standing.get(partition)) is not None:
                _refuse_other_topic(self._log, self._store.flow, partition, topic_id, found)
                _refuse_gap(self._log, self._store.flow, partition, bounds, found.progress)
                _refuse_other_records(self._log, self._store.flow, partition, bounds, found.progress.anchor)
        _refuse_growth(self._log, self._store.flow, self._total, standing)
        return begins


class ResumingPart(StatefulSourcePartition[Claim | LogBatch, None]):
    """One partition; never waits, and asks less often while nothing comes."""

    def __init__(self, source: ResumingSource, partition: int, settle_secs: Sequence[float]) -> None:
        self.partition: Final = partition
        self._source = source
        self._settle: Final = [timedelta(seconds=secs) for secs in settle_secs]
        self._claim: Claim | None = None
        self._reader: LogReader | None = None
        self._together_ms: Final = epochs.together_ms()
        self._idle_ms = 0
        self._awake_at: datetime | None = None
        self._end = 0  # of the last batch
        self._rests_from: datetime | None = None  # None before the partition is at rest
        self._settling: list[timedelta] = []  # after which an empty batch is still to follow
        self._name = f"{source.topic} {partition}"
        HEALTH.built(self._name)

    def opened(self, claim: Claim, reader: LogReader) -> None:
        self._claim, self._reader = claim, reader
        HEALTH.claimed(claim.flow, claim.topic, claim.partition, claim.progress.position)
        HEALTH.opened(self._name)
        self._meter = LogMeter(claim)

    @speaking
    def next_batch(self) -> list[Claim | LogBatch]:
        if stopping.requested():
            raise StopIteration
        if self._reader is None:
            resting.rouse()  # threads that clients start now are to have exact timers
            self._source.open()
        assert self._reader is not None
        if (claim := self._claim) is not None:
            self._claim = None
            return [claim]
        batch = self._reader.read()
        if batch is None:
            resting.rest()
            self._idle_ms = min(max(2 * self._idle_ms, IDLE_MS_MIN), IDLE_MS_MAX)
            self._awake_at = resting.next_look(self._together_ms or self._idle_ms)
            return self._settled()
        log_end = self._reader.end()
        caught_up = log_end is not None and log_end <= batch.end
        self._idle_ms = 0
        self._awake_at = resting.next_look(self._together_ms) if self._together_ms and caught_up else None
        (resting.rest if self._awake_at else resting.rouse)()
        self._end, self._rests_from, self._settling = batch.end, None, self._settle
        HEALTH.read(batch.topic, self.partition, batch.end)
        self._meter.read(batch.end, log_end)
        return [batch]

    def next_awake(self) -> datetime | None:
        return self._awake_at

    def snapshot(self) -> None:
        """Nothing: progress is the sink's to commit."""
        HEALTH.epoch_ended(self._name)

    def close(self) -> None:
        HEALTH.closed(self._name)
        if self._reader is not None:
            self._reader.close()

    def _settled(self) -> list[Claim | LogBatch]:
        if not self._settling:
            return []
        now = datetime.now(UTC)
        self._rests_from = self._rests_from or now
        if now < self._rests_from + self._settling[0]:
            return []
        self._settling = self._settling[1:]
        return [LogBatch(self._source.topic, self.partition, self._end, self._end, (), (), ())]


def _refuse_other_topic(log: Log, flow: str, partition: int, topic_id: str, standing: Standing) -> None:
    if standing.topic_id != topic_id:
        raise OperatorError(
            f"Topic {log.topic} was deleted and made again since flow {flow} read it (its id was {standing.topic_id} "
            f"and is {topic_id}): offset {standing.progress.position} of partition {partition} means another record "
            f"now. {_go_on(log, flow, ' --at beginning')}"
        )


def _refuse_gap(log: Log, flow: str, partition: int, bounds: tuple[int, int], progress: Progress) -> None:
    low, high = bounds
    if high < progress.position:
        raise OperatorError(
            f"Partition {partition} of {log.topic} ends at offset {high}, before position {progress.position} of flow "
            f"{flow}: records that are counted already are missing from the log. Did the cluster lose data? "
            f"{_go_on(log, flow)}"
        )
    if low > progress.resume:
        raise OperatorError(
            f"Partition {partition} of {log.topic} begins at offset {low}, and flow {flow} has to go on from "
            f"{progress.resume}: retention deleted {low - progress.resume} offsets that it needs. "
            f"{_go_on(log, flow)}"
        )


def _refuse_other_records(log: Log, flow: str, partition: int, bounds: tuple[int, int], anchor: Anchor | None) -> None:
    if anchor is None or anchor.offset < bounds[0]:
        return  # nothing accounted for yet, or retention deleted the record itself: nothing to compare with
    if log.anchor(partition, anchor.offset) != anchor:
        raise OperatorError(
            f"Partition {partition} of {log.topic} is not the log that flow {flow} read: the record at offset "
            f"{anchor.offset} differs from the one on record. Is this another cluster, or one restored from a "
            f"backup? {_go_on(log, flow, ' --at beginning|position|end')}"
        )


def _refuse_growth(log: Log, flow: str, total: int, standing: Mapping[int, Standing]) -> None:
    before = {one.partitions for one in standing.values()}
    if before - {total}:
        raise OperatorError(
            f"Topic {log.topic} had {max(before)} partitions when flow {flow} claimed it and has {total} now: devices "
            "lie in other partitions than before. (Before partitions are added, stop ingest and let the flow read to "
            f"the end.) {_go_on(log, flow)}"
        )


def _go_on(log: Log, flow: str, how: str = "") -> str:
    """What can be done: everything that a flow refuses, somebody who knows more can decide."""
    return (
        f"Nothing was claimed or written. To go on with the log as it is, and write down what is given up: ./justw "
        f"forfeit --settings FILE --flow {flow} --topic {log.topic}{how}. To count it anew beside the rows there are, "
        "give the flow another flow.name and output.table."
    )
