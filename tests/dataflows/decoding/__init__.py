"""Tests of dataflows.decoding: what bytes mean, on both sides of the log."""
