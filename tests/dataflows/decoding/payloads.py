"""Strategies: payloads as devices send them, and the ways in which they break.

Hazards made likely: names and values at the edges of the rules, keys twice, times about the limits, truncated and
spliced bytes, flipped bits, wrong wire types, deep nesting, text in wrong encodings. ``test_laws`` asserts that they do
occur.
"""

import json
import struct

from hypothesis import strategies as st

from schemas.telemetry_pb2 import Telemetry
from tests.dataflows.decoding.one import NOW

NAMES = st.sampled_from(["a", "b", "temperature", "ü🌡", "n" * 256])
BAD_NAMES = st.sampled_from(["", "a\0", "\x7f", "\x85", "\u0080x", "n" * 257, "🌡" * 65])
GOOD = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 1.0, 5e-324, 1.7976931348623157e308]
)
NOT_FINITE = st.sampled_from([float("nan"), float("inf"), float("-inf")])
TIMES = st.integers(NOW - 100_000, NOW + 59_000) | st.sampled_from([0, NOW + 60_000, NOW - 604_800_000])
BAD_TIMES = st.sampled_from([1, -1, NOW // 1000, NOW * 1000, NOW + 60_001, 2**63 - 1, -(2**63), 253_402_300_800_000])


def telemetry(
    names: st.SearchStrategy[str], values: st.SearchStrategy[float], times: st.SearchStrategy[int]
) -> st.SearchStrategy[bytes]:
    """Protobuf payloads of device boiler-7, of another or of none."""
    return st.builds(
        lambda device, ts, metrics, raw: Telemetry(
            device_id=device, ts=ts, metrics=metrics, raw=raw
        ).SerializeToString(),
        st.sampled_from(["boiler-7", "boiler-7", "", "boiler-8"]),
        times,
        st.dictionaries(names, values, max_size=5),
        st.binary(max_size=3),
    )


def entry(key: bytes, value: bytes) -> bytes:
    """A map entry of field 3 with any bytes for its value; both short."""
    inner = b"\x0a" + bytes([len(key)]) + key + value
    return b"\x1a" + bytes([len(inner)]) + inner


# Map entries that no encoder of ours writes: a float, an integer, nothing, a key without a value, a key twice.
ODD_ENTRIES = st.builds(
    entry,
    st.sampled_from([b"a", b"b", b"", b"\xff", b"c"]),
    st.sampled_from(
        [b"", b"\x10\x05", b"\x15\0\0\0\0", b"\x11" + struct.pack("<d", 2.5), b"\x11" + bytes(8), b"\x11\0"]
    ),
)
GOOD_TELEMETRY = telemetry(NAMES, GOOD, TIMES)
ANY_TELEMETRY = telemetry(NAMES | BAD_NAMES, GOOD | NOT_FINITE, TIMES | BAD_TIMES)
# What parsers disagree about, or stumble over, behind a message that may be good.
GOOGLE_ALONE = b"+\x01" + bytes(8) + b","  # an unknown group with a field 0: ptars refuses it
PTARS_ALONE = b"+" * 200 + b"," * 200  # unknown groups, deeper than Google's parser goes
PANIC = b"\x22" + b"\xff" * 9 + b"\x01"  # a length of 2⁶⁴ − 1, at which ptars panics
ENDINGS = st.sampled_from([b"", b"\x28\x05", b"+,", b"+" * 9_000, GOOGLE_ALONE, PTARS_ALONE, PANIC])
ODD_TELEMETRY = st.tuples(GOOD_TELEMETRY | ANY_TELEMETRY, ODD_ENTRIES | st.just(b""), ENDINGS).map(b"".join)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**320), 10**320)
    | st.floats()
    | st.text(max_size=5)
    | TIMES
    | BAD_TIMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | BAD_NAMES, inner, max_size=3),
    max_leaves=5,
)
JSON_MESSAGES = st.fixed_dictionaries(
    {"metrics": st.dictionaries(NAMES | BAD_NAMES, GOOD | JSON_VALUES, max_size=4) | JSON_VALUES},
    optional={
        "ts": TIMES | JSON_VALUES,
        "device_id": st.sampled_from(["boiler-7", "boiler-8"]) | JSON_VALUES,
        "other": JSON_VALUES,
    },
)
GOOD_JSON = st.fixed_dictionaries(
    {"metrics": st.dictionaries(NAMES, GOOD, min_size=1, max_size=4)}, optional={"ts": st.integers(NOW - 9, NOW)}
)
JSON = st.builds(
    lambda document, ascii_only: json.dumps(document, ensure_ascii=ascii_only).encode(errors="surrogatepass"),
    JSON_MESSAGES | st.lists(JSON_MESSAGES, max_size=3) | JSON_VALUES,
    st.booleans(),
)


@st.composite
def mutated(draw: st.DrawFn, payloads: st.SearchStrategy[bytes]) -> bytes:
    """A payload, truncated, spliced with another, with some bits flipped, or led by something."""
    payload = bytearray(draw(payloads))
    for how in draw(st.lists(st.sampled_from(["cut", "splice", "flip", "lead"]), max_size=3)):
        at = draw(st.integers(0, len(payload)))
        if how == "cut":
            del payload[at:]
        elif how == "splice":
            payload[at:at] = draw(payloads)
        elif how == "lead":
            payload[:0] = draw(st.sampled_from([b"\xef\xbb\xbf", b" ", b"\n", b"\0", b"\xff\xfe", b"["]))
        elif payload:
            payload[at % len(payload)] ^= 1 << draw(st.integers(0, 7))
    return bytes(payload)


PROTOBUF = GOOD_TELEMETRY | ANY_TELEMETRY | ODD_TELEMETRY
PAYLOADS = PROTOBUF | JSON | GOOD_JSON.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=50)
BROKEN = mutated(PAYLOADS)
RECORDS = PROTOBUF | mutated(PROTOBUF) | st.binary(max_size=50)
CONTENT_TYPES = st.sampled_from(
    [None, None, None, "application/json", "application/protobuf", "text/plain", "text/csv", ""]
)
