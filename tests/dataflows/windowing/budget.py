"""How many examples a property test tries: a number for CI, scaled by the profile (see ``tests/conftest.py``)."""

from hypothesis import settings


def examples(count: int) -> settings:
    """``count`` in CI, a hundred times that with ``--hypothesis-profile=thorough``."""
    return settings(max_examples=count * settings().max_examples // 100)
