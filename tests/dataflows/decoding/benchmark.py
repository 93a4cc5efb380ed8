"""What decoding costs: ``POLARS_MAX_THREADS=1 python -m tests.dataflows.decoding.benchmark``.

Batches of 10,000 messages of four metrics. Times are CPU time of this thread, the best of many rounds, so that a busy
machine counts little; compare a figure with the bare parser's in the same run, and quote none of them alone.
"""

import json
import random
import time
from collections.abc import Callable

import msgspec

from dataflows.decoding.columns import parse
from dataflows.decoding.log import decode_log
from schemas.arrivals import Arrivals
from schemas.log import LogBatch
from schemas.settings import DecodingSettings
from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.decoding.one import NOW, batch, decoder

MESSAGES = 10_000
ROUNDS = 25
NAMES = ("temperature", "humidity", "pressure", "vibration")


def main() -> None:
    chance = random.Random(1)
    metrics = [{name: chance.random() * 100 for name in NAMES} for _ in range(MESSAGES)]
    devices = [f"boiler-{row % 1_000}" for row in range(MESSAGES)]
    values = [
        Telemetry(device_id=device, ts=NOW - row, metrics=each).SerializeToString()
        for row, (device, each) in enumerate(zip(devices, metrics, strict=True))
    ]
    documents = [
        json.dumps({"device_id": device, "ts": NOW - row, "metrics": each}).encode()
        for row, (device, each) in enumerate(zip(devices, metrics, strict=True))
    ]
    log_side(values, chance)
    mqtt_side(devices, values, documents)


def log_side(values: list[bytes], chance: random.Random) -> None:
    bare = report("ptars alone", lambda: parse(values))
    settings = DecodingSettings()

    def decode(records: LogBatch) -> Callable[[], object]:
        return lambda: decode_log(records, settings)

    report("decode_log", decode(batch(values)), bare)
    zeros = [value.replace(value[-8:], bytes(8)) if chance.random() < 0.5 else value for value in values]
    report("  half of them with a zero", decode(batch(zeros)), bare)
    for share in (0.0001, 0.01, 1.0):
        poison = [value[:-5] if chance.random() < share else value for value in values]
        report(f"  {share:.2%} of them poison", decode(batch(poison)), bare)


def mqtt_side(devices: list[str], values: list[bytes], documents: list[bytes]) -> None:
    by = decoder()

    def decode(payloads: list[bytes]) -> Callable[[], object]:
        topics = [f"devices/{device}/telemetry" for device in devices]
        count = len(payloads)
        arrivals = Arrivals("ionwax-ingest-0", topics, payloads, [None] * count, [NOW] * count, [False] * count)
        return lambda: by.decode(arrivals)

    report("ArrivalsDecoder, protobuf", decode(values), report("ptars alone", lambda: parse(values)))
    parser = msgspec.json.Decoder()
    bare = report("msgspec alone", lambda: [parser.decode(document) for document in documents])
    report("ArrivalsDecoder, JSON", decode(documents), bare)


def report(name: str, work: Callable[[], object], bare: float | None = None) -> float:
    """Print and return the seconds of CPU that ``work`` takes at best."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.thread_time()
        work()
        best = min(best, time.thread_time() - begun)
    ratio = "" if bare is None else f"   {best / bare:5.2f} of the bare parser"
    print(f"{name:28} {best * 1_000:7.2f} ms   {MESSAGES / best / 1e6:5.2f} M messages/s{ratio}", flush=True)
    return best


if __name__ == "__main__":
    main()
