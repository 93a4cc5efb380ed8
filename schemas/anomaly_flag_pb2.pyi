from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnomalyFlag(_message.Message):
    __slots__ = ("phase", "bucket", "length_ms", "device_id", "metric", "detector", "severity", "score", "value", "expected", "lower", "upper", "episode_id", "params_version", "revision", "cause")
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PHASE_UNSPECIFIED: _ClassVar[AnomalyFlag.Phase]
        OPEN: _ClassVar[AnomalyFlag.Phase]
        UPDATE: _ClassVar[AnomalyFlag.Phase]
        CLOSE: _ClassVar[AnomalyFlag.Phase]
    PHASE_UNSPECIFIED: AnomalyFlag.Phase
    OPEN: AnomalyFlag.Phase
    UPDATE: AnomalyFlag.Phase
    CLOSE: AnomalyFlag.Phase
    PHASE_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_MS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    PARAMS_VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    phase: AnomalyFlag.Phase
    bucket: int
    length_ms: int
    device_id: str
    metric: str
    detector: str
    severity: str
    score: float
    value: float
    expected: float
    lower: float
    upper: float
    episode_id: str
    params_version: str
    revision: int
    cause: str
    def __init__(self, phase: _Optional[_Union[AnomalyFlag.Phase, str]] = ..., bucket: _Optional[int] = ..., length_ms: _Optional[int] = ..., device_id: _Optional[str] = ..., metric: _Optional[str] = ..., detector: _Optional[str] = ..., severity: _Optional[str] = ..., score: _Optional[float] = ..., value: _Optional[float] = ..., expected: _Optional[float] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ..., episode_id: _Optional[str] = ..., params_version: _Optional[str] = ..., revision: _Optional[int] = ..., cause: _Optional[str] = ...) -> None: ...
