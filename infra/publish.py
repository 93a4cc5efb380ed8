"""`./justw publish`: one reading over MQTT, as a device would send it, and what becomes of it.

    ./justw publish boiler-7 temperature=21.5 running=true --wait
    ./justw publish boiler-7 --raw '{"metrics": {"temperature": "hot"}}' --wait

Goes to the running demo, or to where MQTT_URL (and, to wait, DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS) say, or
--settings.
Exit status: 0 published, and with --wait its rows seen; 1 refused, or not seen in time.
"""

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Final

from infra import running
from infra.duration import spoken
from infra.fleet.publisher import Fates, Publisher
from infra.publish_outcome import Outcome, utc
from infra.reading import Forecast, forecast, instant, payload_of, topic_of
from infra.settings_option import add_settings_option, chosen_settings
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

ACK_SECS_MAX: Final = 10.0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="./justw publish",
        description="Publish one reading over MQTT, as a device would, and say when its minute closes.",
        epilog="example: ./justw publish boiler-7 temperature=21.5 running=true --wait",
    )
    made.add_argument("device", help="device id: what {device_id} is in the topic")
    made.add_argument("metrics", nargs="*", metavar="NAME=VALUE", help="numbers, true or false")
    made.add_argument("--ts", metavar="TIME", help="when it happened: RFC 3339, ms since 1970, or --ts=-90s (now)")
    made.add_argument("--raw", metavar="PAYLOAD", help="these very bytes as payload, right or wrong")
    made.add_argument(
        "--capture", action="append", default=[], metavar="NAME=VALUE", help="another {NAME} of the topic"
    )
    made.add_argument("--wait", action="store_true", help="wait for the row, or the reason of a refusal, and show it")
    add_settings_option(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser()
    chosen = made.parse_intermixed_args(arguments)
    if bool(chosen.metrics) == (chosen.raw is not None):
        made.error("give one or more NAME=VALUE, or --raw PAYLOAD")
    settings = chosen_settings(chosen, *(running.ADDRESSES if chosen.wait else ("MQTT_URL",)))
    captures = dict(word.partition("=")[::2] for word in chosen.capture)
    topic = topic_of(settings, chosen.device, captures)
    now_ms = time.time_ns() // 1_000_000
    if chosen.raw is not None:
        payload = os.fsencode(chosen.raw)
    else:
        ts_ms = now_ms if chosen.ts is None else instant(chosen.ts, now_ms)
        payload = payload_of(chosen.device, chosen.metrics, ts_ms)
    expected = forecast(settings, topic, payload, now_ms)
    outcome = Outcome(settings, topic, payload, expected) if chosen.wait else None
    try:
        acknowledged_ms = asyncio.run(publish(settings.mqtt, topic, payload))
        print(f"published to {topic}; the broker has it after {acknowledged_ms:.0f} ms")
        for line in announcement(expected, now_ms):
            print(line)
        return outcome.show() if outcome else 0
    finally:
        if outcome:
            outcome.close()


async def publish(mqtt: MqttSettings, topic: str, payload: bytes) -> float:
    """Publish at QoS 1; answers how long the PUBACK took, ms. Raises ``OperatorError`` where the broker refuses."""
    refused: list[int] = []
    fates = Fates(lambda _: None, lambda _, reason: refused.append(reason))
    publisher = Publisher(mqtt, fates, client_id=f"ionwax-publish-{secrets.token_hex(4)}")
    await publisher.open()
    try:
        started = time.perf_counter()
        await publisher.room()
        publisher.send(0, [(topic, payload)])
        answered = await publisher.drained(ACK_SECS_MAX)
        took_ms = 1_000 * (time.perf_counter() - started)
    finally:
        await publisher.close()
    if refused:
        raise OperatorError(f"the broker at {mqtt.url} refused the message (MQTT reason {refused[0]:#04x})")
    if not answered:
        raise OperatorError(f"the broker at {mqtt.url} did not acknowledge within {ACK_SECS_MAX:.0f} s")
    return took_ms


def announcement(expected: Forecast, now_ms: int) -> list[str]:
    """What will become of it, in lines for a person."""
    lines = []
    if expected.refused:
        lines.append(f"ingest will refuse {'a part of it' if expected.readings else 'it'}: {expected.refused}")
    for bucket_ms, closes_ms in sorted({(reading.bucket_ms, reading.closes_ms) for reading in expected.readings}):
        window = f"its minute, {utc(bucket_ms, '%H:%M')} UTC on {utc(bucket_ms, '%Y-%m-%d')},"
        if closes_ms <= now_ms:
            lines.append(
                f"{window} closed {spoken((now_ms - closes_ms) / 1_000)} ago: late, it revises its row at once"
            )
        else:
            wait_secs = (closes_ms - now_ms) / 1_000
            lines.append(
                f"{window} closes in {spoken(wait_secs)}, at {utc(closes_ms, '%H:%M:%S')}; then its row is there"
            )
    return lines


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"publish: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
