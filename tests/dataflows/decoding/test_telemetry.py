"""The hand-written wire format against Google's."""

from hypothesis import example, given
from hypothesis import strategies as st

from dataflows.decoding import telemetry
from dataflows.decoding.telemetry import TelemetryEncoder
from schemas.telemetry_pb2 import Telemetry

# Lengths about 128, where the size of a length changes, and times about every power of 128.
NAMES = st.text(max_size=140) | st.integers(100, 260).map(lambda n: "n" * n)
TIMES = st.integers(-(2**63), 2**63 - 1) | st.builds(lambda e, d: (1 << e) + d, st.integers(0, 62), st.integers(-1, 1))


@given(NAMES, TIMES, st.dictionaries(NAMES, st.floats(allow_nan=False)), st.binary(max_size=300))
@example("", 0, {}, b"")
@example("d", -1, {"": 0.0}, b"x" * 128)
def test_google_reads_what_we_write(device: str, ts: int, metrics: dict[str, float], raw: bytes) -> None:
    """The same message comes back, and its size is what Google's own encoder needs."""
    encoded = TelemetryEncoder().encode(device.encode(), ts, metrics, raw)
    read = Telemetry.FromString(encoded)
    assert (device, ts, metrics, raw) == (read.device_id, read.ts, dict(read.metrics), read.raw)
    assert len(encoded) == read.ByteSize()


def test_names_are_remembered_up_to_a_limit() -> None:
    """A device that invents names costs no memory for ever; what is written stays the same."""
    encoder = TelemetryEncoder()
    for i in range(telemetry.KNOWN_NAMES_MAX + 10):
        encoder.encode(b"d", 1, {f"m{i}": 1.0})
    assert len(encoder._names) <= telemetry.KNOWN_NAMES_MAX
    assert encoder.encode(b"d", 1, {"m0": 1.0}) == TelemetryEncoder().encode(b"d", 1, {"m0": 1.0})
