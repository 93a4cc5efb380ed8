from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Rollup(_message.Message):
    __slots__ = ("bucket", "length_ms", "device_id", "metric", "revision", "count", "mean", "m2", "min", "max", "first", "last", "first_ts", "last_ts")
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_MS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    M2_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    FIRST_TS_FIELD_NUMBER: _ClassVar[int]
    LAST_TS_FIELD_NUMBER: _ClassVar[int]
    bucket: int
    length_ms: int
    device_id: str
    metric: str
    revision: int
    count: int
    mean: float
    m2: float
    min: float
    max: float
    first: float
    last: float
    first_ts: int
    last_ts: int
    def __init__(self, bucket: _Optional[int] = ..., length_ms: _Optional[int] = ..., device_id: _Optional[str] = ..., metric: _Optional[str] = ..., revision: _Optional[int] = ..., count: _Optional[int] = ..., mean: _Optional[float] = ..., m2: _Optional[float] = ..., min: _Optional[float] = ..., max: _Optional[float] = ..., first: _Optional[float] = ..., last: _Optional[float] = ..., first_ts: _Optional[int] = ..., last_ts: _Optional[int] = ...) -> None: ...
