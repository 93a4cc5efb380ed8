"""Protobuf payloads: one ``Telemetry`` (schemas/telemetry.proto), as devices send it over MQTT.

proto3 cannot tell an absent ``ts`` from 0: 0 is absent here. Unknown fields are passed over, but for field 3: upb
puts there map entries of which a value has another type (a device with ``map<string, float>``), and they would vanish.
"""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from dataflows.decoding.reasons import Flaw, Reason
from dataflows.decoding.said import Said
from schemas.telemetry_pb2 import Telemetry

_METRICS_FIELD: Final = Telemetry.METRICS_FIELD_NUMBER


def decode_protobuf(payload: bytes) -> Sequence[Said | Flaw] | Flaw:
    """The message of a protobuf payload; the empty payload is an empty message."""
    said = read_telemetry(payload)
    return said if isinstance(said, Flaw) else (said,)


def read_telemetry(payload: bytes) -> Said | Flaw:
    """What a ``Telemetry`` says; a device id and a time that are not there are None."""
    try:
        message = Telemetry.FromString(payload)
    except DecodeError as error:
        return Flaw(Reason.BAD_PROTOBUF, str(error)[:200])
    unknown = UnknownFieldSet(message)
    if any(unknown[i].field_number == _METRICS_FIELD for i in range(len(unknown))):
        return Flaw(Reason.BAD_SHAPE, "metrics are not a map of string to double")
    # upb's own order is nobody's promise, and a message that comes again after a restart is known by its bytes.
    metrics = dict(sorted(message.metrics.items()))
    return Said(message.device_id or None, message.ts or None, metrics, message.raw)
