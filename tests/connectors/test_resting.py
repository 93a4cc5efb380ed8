"""A worker with nothing to do sleeps deeply, and one with something does not."""

import ctypes
import sys
import threading

import pytest

from connectors import resting
from connectors.resuming import ResumingSource
from schemas.progress import Claim, Progress
from tests.connectors.kept_log import KeptLog

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a thread's timers be late")

GET_TIMERSLACK = 30
DEEP_NS, USUAL_NS = resting.SLACK_MS * 1_000_000, 50_000


def slack_ns() -> int:
    """What the kernel allows the calling thread's timers."""
    return int(ctypes.CDLL(None).prctl(GET_TIMERSLACK, 0, 0, 0, 0))


class Store:
    """Claims whatever is asked for, from its beginning."""

    flow = "resting"

    def standing(self, topic: str) -> dict[int, object]:  # noqa: ARG002
        return {}

    def claim(self, topic: str, topic_id: str, partitions: int, begins: dict[int, int]) -> dict[int, Claim]:  # noqa: ARG002
        return {
            partition: Claim(self.flow, topic, partition, 1, topic_id, Progress(begin, begin, begin))
            for partition, begin in begins.items()
        }


def test_a_source_rests_while_its_log_does() -> None:
    """The kernel's own answer, after each batch that a part hands on or has not; in a thread that ends."""
    slacks = []

    def poll() -> None:
        part = ResumingSource(KeptLog("log", [1]), Store()).build_part("source", "0", None)  # type: ignore[arg-type]
        slacks.extend((len(part.next_batch()), slack_ns()) for _ in range(3))

    resting.rouse()
    thread = threading.Thread(target=poll)
    thread.start()
    thread.join()
    assert [(1, USUAL_NS), (1, USUAL_NS), (0, DEEP_NS)] == slacks, "the claim, the one record, nothing"


def test_threads_inherit_how_deep_their_maker_slept() -> None:
    """So clients are made by a thread that is awake: theirs are not ours to make late."""
    found = []

    def start() -> None:
        for sleep in (resting.rest, resting.rouse):
            sleep()
            child = threading.Thread(target=lambda: found.append(slack_ns()))
            child.start()
            child.join()

    maker = threading.Thread(target=start)
    maker.start()
    maker.join()
    assert [DEEP_NS, USUAL_NS] == found
