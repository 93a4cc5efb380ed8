"""Databases for the connectors' tests."""

import pytest

from tests.connectors.timescale_tables import migrated


@pytest.fixture
def migrated_url(database_url: str) -> str:
    """A fresh database with this version's tables."""
    return migrated(database_url)
