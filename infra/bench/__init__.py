"""Measurements: `./justw bench NAME` runs one set of them and writes bench/NAME.md and bench/NAME.json.

Rule: every case runs in a process of its own, several times, in turn with those it is compared with, so that a
busy machine slows all of them alike; what is compared are ratios of medians within one run. A case checks its own
answer, or it does not count.
"""
