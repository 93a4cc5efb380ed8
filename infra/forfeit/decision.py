"""What is wrong with a partition's log, by what is on record of it, and where the flow goes on. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from connectors.checkpoint import Standing
from schemas.progress import Anchor

At = Literal["beginning", "position", "end"]


class Wrong(StrEnum):
    """Why a flow refuses a log. The words stand in the ledger."""

    OTHER_TOPIC = "the topic was deleted and made again"
    OTHER_RECORDS = "the log holds other records than those on record"
    ENDS_EARLY = "the log ends before the position"
    DELETED = "retention deleted offsets that are needed"
    GROWN = "the topic has more partitions"


@dataclass(frozen=True, slots=True)
class Found:
    """A partition's log as it is now. ``anchor`` is the record that stands where the one on record stood."""

    topic_id: str
    low: int
    high: int
    partitions: int
    anchor: Anchor | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the flow goes on: ``position`` is the next offset to account for, from ``resume`` on windows are refilled.

    ``same_log`` says that offsets mean what they meant.
    """

    wrong: Wrong
    position: int
    resume: int
    same_log: bool


class Undecided(Exception):
    """Where to go on is for a person to say."""

    def __init__(self, wrong: Wrong) -> None:
        super().__init__(wrong)
        self.wrong = wrong


def decide(standing: Standing, found: Found, at: At | None) -> Decision | None:
    """How to go on; None where nothing is wrong. Raises ``Undecided`` where ``at`` is needed and not given.

    Of the same log only what it no longer has is given up, wherever that leads; of another one, it has to be said
    whether its records are new (the beginning), the same (the position), or of no interest (the end).
    """
    progress = standing.progress
    wrong = wrong_with(standing, found)
    if wrong is None:
        return None
    if wrong is Wrong.GROWN:
        return Decision(wrong, progress.position, progress.resume, same_log=True)
    if wrong is Wrong.DELETED:
        return Decision(wrong, max(progress.position, found.low), max(progress.resume, found.low), same_log=True)
    if wrong is Wrong.ENDS_EARLY:
        return Decision(wrong, found.high, min(max(progress.resume, found.low), found.high), same_log=True)
    if at is None:
        raise Undecided(wrong)
    position = {"beginning": found.low, "position": progress.position, "end": found.high}[at]
    position = min(max(position, found.low), found.high)
    resume = min(max(progress.resume, found.low), position) if at == "position" else position
    return Decision(wrong, position, resume, same_log=False)


def wrong_with(standing: Standing, found: Found) -> Wrong | None:
    """The first reason for which a flow would refuse to start."""
    progress, anchor = standing.progress, standing.progress.anchor
    if standing.topic_id != found.topic_id:
        return Wrong.OTHER_TOPIC
    if found.high < progress.position:
        return Wrong.ENDS_EARLY
    if found.low > progress.resume:
        return Wrong.DELETED
    if anchor is not None and anchor.offset >= found.low and anchor != found.anchor:
        return Wrong.OTHER_RECORDS
    return Wrong.GROWN if standing.partitions != found.partitions else None
