"""Why a payload, or a part of it, cannot be used: a closed set, and the words for a person that go with it."""

from enum import StrEnum
from typing import Final, NamedTuple


class Reason(StrEnum):
    """The ``reason`` header of a dead letter. Others build on these names: add none lightly, change none."""

    NOT_JSON = "not_json"
    BAD_PROTOBUF = "bad_protobuf"
    BAD_SHAPE = "bad_shape"
    BAD_NAME = "bad_name"
    NOT_A_NUMBER = "not_a_number"
    NO_METRICS = "no_metrics"
    TOO_MANY_METRICS = "too_many_metrics"
    TOO_LARGE = "too_large"
    DEVICE_MISMATCH = "device_mismatch"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    BAD_TIMESTAMP = "bad_timestamp"
    UNKNOWN_SCHEMA = "unknown_schema"
    RATE_LIMITED = "rate_limited"


class Flaw(NamedTuple):
    """A reason, and what exactly was found: bounded in length, whatever the payload held."""

    reason: Reason
    detail: str


SHOWN_CHARS_MAX: Final = 48


def shown(value: object, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """``value`` from a payload, as a detail shows it: quoted, escaped, cut."""
    if isinstance(value, str):
        return repr(value[:chars_max]) + ("…" if len(value) > chars_max else "")
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 128:
        return "an integer of more than 128 bits"
    return repr(value)
