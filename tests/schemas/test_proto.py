"""Generated code and its sources."""

import struct

from infra.proto import ROOT, stale
from schemas.telemetry_pb2 import Telemetry


def test_generated_code_is_current() -> None:
    """``just proto`` would change no file that is committed."""
    assert stale() == []


def test_every_proto_file_is_generated() -> None:
    """No source without its two files, no generated file without its source."""
    sources = {path.stem for path in ROOT.glob("schemas/*.proto")}
    assert "telemetry" in sources
    for end in ("_pb2.py", "_pb2.pyi"):
        assert sources == {path.name.removesuffix(end) for path in ROOT.glob(f"schemas/*{end}")}


def test_telemetry_is_what_the_contract_says() -> None:
    """Other systems write these bytes: device_id = 1, ts = 2, metrics = 3 (string to double), raw = 4."""
    metric = b"\x0a\x01t\x11" + struct.pack("<d", 21.5)
    wire = b"\x0a\x01d" + b"\x10\x05" + b"\x1a" + bytes([len(metric)]) + metric + b"\x22\x02\x00\xff"
    assert Telemetry(device_id="d", ts=5, metrics={"t": 21.5}, raw=b"\x00\xff") == Telemetry.FromString(wire)
