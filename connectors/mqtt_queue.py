"""How long the broker can keep what devices send while ingest is away: said once, in words, at the start of a process.

What can be known: our own rate, measured; nothing else. MQTT 5 tells a client how much may be in flight (Receive
Maximum) and how large a packet may be, not how many messages may be queued for a session, and neither does mosquitto's
``$SYS``. So the queue's length is a setting, ``mqtt.broker_queue_messages_max``, to be set as the broker is.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from schemas.settings import MqttSettings

log = logging.getLogger("ionwax.mqtt")

MEASURE_SECS: Final = 15.0
SHORT_SECS: Final = 300.0  # an absence that a restart, an update, a night's hiccup may well take


async def say_bearing(settings: MqttSettings, worker: str, received: Callable[[], int]) -> None:
    """Measure the rate of ``worker`` for a while, and say it. ``received`` counts its messages."""
    before = received()
    await asyncio.sleep(MEASURE_SECS)
    rate = (received() - before) / MEASURE_SECS
    said = bearing(settings, rate)
    level = logging.INFO if said.endswith(".") else logging.WARNING
    log.log(level, "%s %s", worker, said)


def bearing(settings: MqttSettings, rate: float) -> str:
    """What an absence costs at ``rate`` messages a second; ends with an exclamation mark where it may cost readings."""
    queue, expiry_secs = settings.broker_queue_messages_max, settings.session_expiry_secs
    receives = f"receives {rate:,.0f} messages a second."
    if queue is None:
        return (
            f"{receives} How long the broker keeps them while ingest is away is not known: set "
            "mqtt.broker_queue_messages_max as the broker is set (mosquitto: max_queued_messages, by default 1,000)!"
        )
    if queue == 0:
        return f"{receives} While ingest is away the broker keeps all of them, for up to {_spoken(expiry_secs)}."
    bears_secs = min(queue / rate, expiry_secs) if rate else expiry_secs
    words = f"{receives} The broker's queue of {queue:,} bears an absence of {_spoken(bears_secs)}"
    return f"{words}; what comes later is lost!" if bears_secs < SHORT_SECS else f"{words}."


def _spoken(secs: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if secs >= 2 * length:
            return f"{secs / length:.0f} {unit}"
    return f"{secs:.0f} s" if secs >= 10 else f"{secs:.1f} s"
