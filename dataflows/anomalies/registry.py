"""The detectors there are, by the name that flags carry. Adding one: a file here, a line below.

Each stands here with its default parameters; a rule makes one with its own (``rules``).
"""

from collections.abc import Mapping
from typing import Final

from dataflows.anomalies.novelty import Novelty
from dataflows.anomalies.protocol import Detector
from dataflows.anomalies.rate import Rate
from dataflows.anomalies.silence import Silence
from dataflows.anomalies.stuck import Stuck
from dataflows.anomalies.threshold import Threshold

DETECTORS: Final[Mapping[str, Detector]] = {
    detector.name: detector for detector in (Novelty(), Threshold(), Rate(), Stuck(), Silence())
}
