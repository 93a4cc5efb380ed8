"""The contract of every connector (``connectors/README.md``), as tests: each runs them against its real server.

A connector's test module makes a ``Subject``, gives it as the fixture ``subject``, and subclasses ``Contract``;
pytest does the rest. A subject carries numbers from the dataflow's side to the server's side or back, whichever is
its way, and looks at the far side by other means than the connector.
"""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from connectors import stopping
from schemas.errors import OperatorError


class Subject(Protocol):
    """One connector and its server."""

    @property
    def exactly_once(self) -> bool:
        """Whether numbers arrive once through any crash; else at least once."""
        ...

    def carry(self, numbers: Sequence[int]) -> None:
        """Carry the numbers, and return when the connector says that they are safe."""
        ...

    def arrived(self) -> list[int]:
        """What the far side has, in any order; each number as often as it is there."""
        ...

    def crash(self, numbers: Sequence[int]) -> None:
        """Carry the numbers until just before they are safe, die as by kill -9, and start again from what is on record.

        What was not safe is carried again, as its origin would send it again.
        """
        ...

    def away(self) -> AbstractContextManager[None]:
        """The server cannot be reached, connections to it are cut."""
        ...

    def refused(self) -> str:
        """Start with wrong credentials; the message of the ``OperatorError``. Asserts that no secret is in it."""
        ...


class Contract:
    """What each connector guarantees, at its far side."""

    def test_what_is_safe_has_arrived(self, subject: Subject) -> None:
        """When the connector says so, it is there, once."""
        subject.carry([1, 2, 3])
        assert sorted(subject.arrived()) == [1, 2, 3]
        subject.carry([4])
        assert sorted(subject.arrived()) == [1, 2, 3, 4]

    def test_a_crash_loses_nothing(self, subject: Subject) -> None:
        """Killed before an epoch was safe: all of it arrives by the second start, and once where that is promised."""
        subject.carry([1, 2])
        subject.crash([3, 4])
        subject.carry([5])
        assert set(subject.arrived()) == {1, 2, 3, 4, 5}
        if subject.exactly_once:
            assert sorted(subject.arrived()) == [1, 2, 3, 4, 5]

    def test_an_outage_is_survived_without_a_hand(self, subject: Subject) -> None:
        """What was carried while the server was away arrives when it is back; nothing of before is lost."""
        subject.carry([1, 2])
        done = threading.Event()
        failed: list[BaseException] = []

        def carry() -> None:
            try:
                subject.carry([3, 4])
            except BaseException as error:
                failed.append(error)
            done.set()

        with subject.away():
            threading.Thread(target=carry, daemon=True).start()
            assert not done.wait(0.5), "it said that numbers are safe while the server was away"
        assert done.wait(60)
        assert failed == []
        assert set(subject.arrived()) == {1, 2, 3, 4}
        if subject.exactly_once:
            assert sorted(subject.arrived()) == [1, 2, 3, 4]

    def test_asked_to_stop_during_an_outage_it_ends_with_one_message(self, subject: Subject) -> None:
        """Within 10 s, and nothing half-done: a later start carries it."""
        subject.carry([1])
        ended: list[BaseException] = []

        def carry() -> None:
            try:
                subject.carry([2])
            except BaseException as error:
                ended.append(error)

        carrying = threading.Thread(target=carry, daemon=True)
        try:
            with subject.away():
                carrying.start()
                stopping.request()
                carrying.join(10)
                assert not carrying.is_alive()
        finally:
            stopping.forget()
        assert len(ended) == 1
        assert isinstance(ended[0], OperatorError)
        assert "\n" not in str(ended[0])
        assert subject.arrived() == [1]

    def test_wrong_credentials_are_one_message(self, subject: Subject) -> None:
        """It says where it tried, and what to look at."""
        message = subject.refused()
        assert message
        assert "\n" not in message
