"""The detectors: each judges rollups as they close. Pure: numpy, polars and schemas only; no clock, no I/O.

Rule: a detector is one file here and one line in ``registry``; the laws in tests/dataflows/anomalies run over all.
"""
