"""The window core: from a partition's log to its rollups."""

from dataflows.windowing.core import Windows

__all__ = ["Windows"]
