"""MQTT topic filters: whether one matches what another names (MQTT 5, section 4.7).

+            is any one level, also an empty one
#            is the level it stands for and all below, and the level above it: a/# matches a
$share/n/f   matches what f does; a first level that begins with $ is matched by no wildcard
"""

import re
from collections.abc import Sequence
from typing import Final

_PLACE: Final = re.compile(r"\{[a-z0-9_]+\}")
SHARED: Final = "$share"


def filter_of(template: str) -> str:
    """The filter of all topics that ``template`` makes: a level that is a ``{name}`` can be anything."""
    return "/".join("+" if _PLACE.fullmatch(level) else level for level in template.split("/"))


def overlap(one: str, other: str) -> bool:
    """Whether some topic matches both filters."""
    return _overlap(_levels(one), _levels(other), first=True)


def _levels(topic_filter: str) -> Sequence[str]:
    levels = topic_filter.split("/")
    return levels[2:] if levels[0] == SHARED and len(levels) > 2 else levels


def _overlap(one: Sequence[str], other: Sequence[str], first: bool = False) -> bool:
    for ours, theirs in ((one, other), (other, one)):
        if ours and ours[0] == "#":
            return not (first and theirs and theirs[0].startswith("$"))
    if not one or not other:
        return one == other or [*one, *other] == ["#"]
    return _meet(one[0], other[0], first) and _overlap(one[1:], other[1:])


def _meet(one: str, other: str, first: bool) -> bool:
    if "+" in (one, other):
        return not (first and "$" in (one[:1], other[:1]))
    return one == other
