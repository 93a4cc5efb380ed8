"""The locks are what pyproject.toml asks for, agree with one another, and name no index."""

import re
from itertools import combinations, product

import pytest
from packaging.requirements import Requirement

from tests.locks import ALONE, LOCKS, ROOT, canonical, pinned, required

# Where the project runs, as markers see it.
PLACES = [
    {"python_version": version, "python_full_version": f"{version}.1", "sys_platform": system, "platform_system": name}
    | {"implementation_name": "cpython", "platform_python_implementation": "CPython", "platform_machine": machine}
    for version, (system, name), machine in product(
        ("3.11", "3.12"), (("linux", "Linux"), ("darwin", "Darwin")), ("x86_64", "aarch64")
    )
]


def versions(lock: str, place: dict[str, str]) -> dict[str, str]:
    """What a lock installs in a place: name → version."""
    pins = [pin for pin in pinned(lock) if pin.marker is None or pin.marker.evaluate(dict(place))]
    installed = {canonical(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(installed) == len(pins), "a package is pinned twice for one place"
    return installed


def test_each_lock_file_is_known() -> None:
    """A lock that nothing checks and nothing installs does not lie about."""
    assert {path.name for path in ROOT.glob("requirements*.lock")} == set(LOCKS)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_satisfies_its_group(lock: str) -> None:
    """Every declared dependency is pinned, on both Pythons and systems, to a version that it allows."""

    def unmet(requirement: Requirement, installed: dict[str, str]) -> bool:
        version = installed.get(canonical(requirement.name))
        return version is None or not requirement.specifier.contains(version, prereleases=True)

    missing = {
        str(requirement)
        for place in PLACES
        for requirement in required(LOCKS[lock])
        if (requirement.marker is None or requirement.marker.evaluate(dict(place)))
        and unmet(requirement, versions(lock, place))
    }
    assert missing == set()


def test_locks_agree() -> None:
    """One package has one version in all locks that can share an environment."""
    shared = [lock for lock, group in LOCKS.items() if group not in ALONE]
    for place in PLACES:
        for one, other in combinations(shared, 2):
            left, right = versions(one, place), versions(other, place)
            differing = {name for name in left.keys() & right.keys() if left[name] != right[name]}
            assert differing == set(), f"{one} and {other} differ"


@pytest.mark.parametrize("lock", LOCKS)
def test_each_pin_is_exact_and_hashed(lock: str) -> None:
    """Nothing is installed that was not hashed when the lock was made, and from no index but the person's own."""
    assert pinned(lock)
    for pin, hashes in pinned(lock).items():
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), pin
        assert hashes, pin
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), pin
        assert pin.url is None
