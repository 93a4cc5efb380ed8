"""Tests of the services that run beside the dataflows."""
