"""Tests of the shapes that cross boundaries."""
