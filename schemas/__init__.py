"""Shapes that cross a process or module boundary: protobuf, frames, records, progress, settings.

Rule: nothing here imports anything else of ours, and nothing here does I/O or reads a clock.
"""
