"""What a fleet is to do, as data: who, how often, for how long, in which format, with which faults."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, Literal

from schemas.errors import OperatorError

Format = Literal["json", "protobuf"]

RATES: Final[Mapping[str, float]] = {
    "duplicate": 0.02,  # sent twice while its minute is open: at once, or up to 0.3 of the lateness later
    "disorder": 0.03,  # held back, within the allowed lateness
    "late": 0.01,  # held back until its minute has surely closed; one in four of these is sent twice
    "broken": 0.01,  # a payload that cannot be used, or only in part; one of ``payloads.BROKEN``
    "spike": 0.004,  # one value far off
    "stuck": 0.08,  # share of a device's ten-minute slots in which its sensors repeat one value for a while
    "silence": 0.06,  # share of a device's ten-minute slots in which it says nothing for a while
    "surge": 0.01,  # share of a device's ten-minute slots in which its pressure is far too high for a while
    "fast-clock": 0.0,  # share of clocks that are 4 minutes fast, beside the one that always is
    "repeat": 0.01,  # sent on time, and again when its minute has surely closed
}
"""The faults and how often each happens where it is asked for: of the messages, unless said otherwise."""

ALL: Final = tuple(name for name in RATES if name != "repeat")
"""What ``all`` means. A ``repeat`` can be told apart only while the raw archive has the first copy: by name only."""

TOPIC: Final = "devices/{device_id}/telemetry"

KINDS: Final = ("boiler", "pump", "press", "chiller", "turbine", "mixer")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet sends. Equal plans send equal messages.

    ``rate`` is messages a second of the whole fleet; ``for_secs`` counts from ``start_ms`` on, and None is for ever;
    ``history_secs`` before ``start_ms`` are sent first, as fast as the broker takes them, and ahead of them the
    ``before_secs`` before that: a message a minute and device, without faults but for clocks. ``topic`` may name
    ``{user}`` and ``{device_id}``. ``lateness_secs`` and ``window_secs`` are the dataflow's: they say what is late.
    """

    start_ms: int
    seed: int = 1
    users: int = 1
    devices_per_user: int = 24
    rate: float = 24.0
    for_secs: float | None = 60.0
    history_secs: float = 0.0
    before_secs: float = 0.0
    format: Format = "json"
    faults: Mapping[str, float] = field(default_factory=dict)
    topic: str = TOPIC
    lateness_secs: float = 10.0
    window_secs: float = 60.0

    def __post_init__(self) -> None:
        if self.users < 1 or self.devices_per_user < 1:
            raise OperatorError("a fleet needs at least one user and one device for each")
        if not self.rate > 0:
            raise OperatorError("--rate is messages a second of the whole fleet, above 0")
        _check_topic(self.topic)

    @property
    def devices(self) -> int:
        return self.users * self.devices_per_user

    @property
    def interval_ms(self) -> float:
        """Between two readings of one device."""
        return 1_000 * self.devices / self.rate

    @property
    def history_ms(self) -> int:
        """Where the history begins, and all devices speak at their own pace."""
        return self.start_ms - round(self.history_secs * 1_000)

    @property
    def first_ms(self) -> int:
        return self.history_ms - round(self.before_secs * 1_000)

    @property
    def end_ms(self) -> int | None:
        return None if self.for_secs is None else self.start_ms + round(self.for_secs * 1_000)

    def names(self) -> list[tuple[str, str]]:
        """(topic, device id) of each device, by its index.

        The id is unique where the topic names no user; where it does, the id is the device's own among its user's.
        """
        by_user = "{user}" in self.topic
        found = []
        for index in range(self.devices):
            user, number = divmod(index, self.devices_per_user)
            device_id = f"{KINDS[number % len(KINDS)]}-{number // len(KINDS) + 1}"
            if not by_user and self.users > 1:
                device_id = f"user-{user + 1}-{device_id}"
            found.append((self.topic.format(user=f"user-{user + 1}", device_id=device_id), device_id))
        return found


def _check_topic(topic: str) -> None:
    captures = set(re.findall(r"\{([^}]*)\}", topic))
    if unknown := captures - {"user", "device_id"}:
        raise OperatorError(f"topic {topic!r}: {{{min(unknown)}}} is not known here; use {{user}} and {{device_id}}")
    if "device_id" not in captures:
        raise OperatorError(f"topic {topic!r} names no {{device_id}}: all devices would publish as one")
    if {"#", "+"} & set(topic):
        raise OperatorError(f"topic {topic!r}: a wildcard can be subscribed to, not published to")


def parse_faults(text: str) -> dict[str, float]:
    """Read ``all``, ``none``, or names with or without a share: ``late,broken=0.05``, ``all,repeat``."""
    faults: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, given, share = word.partition("=")
        if name == "all" and not given:
            faults |= {each: RATES[each] for each in ALL}
        elif name == "none" and not given:
            faults.clear()
        else:
            faults[_fault(name)] = _share(name, share) if given else RATES[_fault(name)]
    _check_sum(faults, ("duplicate", "disorder", "late", "broken", "spike", "repeat"))
    return faults


def _fault(name: str) -> str:
    if name in RATES:
        return name
    near = get_close_matches(name, RATES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise OperatorError(f"--faults: {name!r} is not a fault; {hint}known are all, none, {', '.join(RATES)}")


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise OperatorError(f"--faults: {name}={text}: a share between 0 and 1 is meant, as in {name}=0.05")
    return share


def _check_sum(faults: Mapping[str, float], exclusive: Iterable[str]) -> None:
    total = sum(faults.get(name, 0.0) for name in exclusive)
    if total > 1:
        raise OperatorError(
            f"--faults: the shares of {', '.join(exclusive)} add up to {total:g}; a message has one at most"
        )
