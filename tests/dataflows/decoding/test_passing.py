"""Payloads that go into the log as they came: which of them do, each by itself."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from dataflows.decoding.alike import ALIKE_MIN, read_alike
from dataflows.decoding.passing import passing
from schemas.packed import Packed
from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.decoding.one import NOW
from tests.dataflows.decoding.test_alike import fleets, written

METRICS_MAX = 3
PLAIN = written("boiler-7", NOW, (1.5, 0.0))
LONG_TIME = bytes((0x10, 0x81, 0x00))  # 1, in a byte more than it needs
NO_TIME = bytes((0x10, 0x00))  # 0, which would be left out


def with_time(time: bytes, device: bytes = b"a") -> bytes:
    record = written(device.decode(), 1, (1.5,))
    return record.replace(b"\x10\x01", time, 1)


@given(fleets())
@example([PLAIN, written("boiler-8", NOW + 1, (0.0, -0.0)), *[PLAIN] * 4])
@example([with_time(LONG_TIME)] * 5)
@example([with_time(NO_TIME)] * 5)
@example([*[with_time(b"\x10\x01")] * 5, with_time(NO_TIME)])
@example([*[with_time(b"\x10\x81\x01")] * 5, with_time(LONG_TIME)])
@example([written("d", NOW, (1.0, 2.0, 3.0, 4.0))] * 5)
def test_a_payload_passes_by_itself(payloads: list[bytes]) -> None:
    """With any others it says the same, and is as good, as alone, where it is parsed."""
    found = passing(payloads, METRICS_MAX)
    for row, payload in enumerate(payloads):
        alone = passing([payload], METRICS_MAX)
        assert bool(found.good[row]) == bool(alone.good[0])
        if alone.good[0]:
            assert (found.device_ids[row], found.ts[row]) == (alone.device_ids[0], alone.ts[0])


@given(st.integers(ALIKE_MIN, 20), st.integers(0, 19))
def test_payloads_are_alike_but_for_some(count: int, odd: int) -> None:
    """The hazard of the law above: most are read as a matrix, one is not, and nothing of it reaches its neighbours."""
    payloads = [written(f"boiler-{n}", NOW + n, (1.5, float(n))) for n in range(10, 10 + count)]
    stranger = Telemetry(device_id="é" * 4, ts=NOW, metrics={"t": 1.0, "p": 2.0}).SerializeToString()
    payloads.insert(odd % count, stranger)
    assert read_alike(Packed.of(payloads)) is not None
    found = passing(payloads, METRICS_MAX)
    assert found.good.all()
    assert [Telemetry.FromString(payload).device_id for payload in payloads] == found.device_ids
    assert np.array_equal([Telemetry.FromString(payload).ts for payload in payloads], found.ts)
