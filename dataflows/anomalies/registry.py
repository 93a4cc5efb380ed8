"""The detectors there are, by the name that flags carry. Adding one: a file here, a line below."""

from collections.abc import Mapping
from typing import Final

from dataflows.anomalies.novelty import Novelty
from dataflows.anomalies.protocol import Detector

DETECTORS: Final[Mapping[str, Detector]] = {detector.name: detector for detector in (Novelty(),)}
