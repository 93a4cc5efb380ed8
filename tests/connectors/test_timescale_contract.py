"""PostgreSQL or TimescaleDB under the contract of every connector; a number carried twice is a row more."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from connectors.timescale_connection import Connection
from schemas.errors import OperatorError
from schemas.progress import Claim, Counts, Progress
from tests.connectors.contract import Contract
from tests.connectors.cut_wire import Wire, wire
from tests.connectors.timescale_tables import TOPIC, claimed, rows, store

pytestmark = [pytest.mark.embedded, pytest.mark.contract]
WRITE = "insert into numbers values (%s)"


class Dies(Exception):
    """kill -9."""


class Sealed:
    """A sealing store over a wire. What is safe is what its transaction committed."""

    exactly_once = True

    def __init__(self, conninfo: str, way: Wire) -> None:
        self._conninfo = conninfo
        self._way = way
        self._start()

    def _start(self) -> None:
        """As a process does: claim, and go on from what is on record."""
        self._store = store(self._way.conninfo, outage_max_secs=60.0)
        self._claim: Claim = claimed(self._store)
        self._at: Progress = self._claim.progress

    def _after(self, numbers: Sequence[int]) -> Progress:
        position = self._at.position + len(numbers)
        return replace(self._at, position=position, resume=position)

    def carry(self, numbers: Sequence[int]) -> None:
        def work(transaction: Connection) -> Counts:
            for number in numbers:
                transaction.execute(WRITE, [number])
            return Counts(messages=len(numbers))

        after = self._after(numbers)
        self._store.seal(self._claim, self._at, after, work)
        self._at = after

    def crash(self, numbers: Sequence[int]) -> None:
        def work(transaction: Connection) -> Counts:
            for number in numbers:
                transaction.execute(WRITE, [number])
            raise Dies

        with pytest.raises(Dies):
            self._store.seal(self._claim, self._at, self._after(numbers), work)
        self._start()
        self.carry(numbers)

    def arrived(self) -> list[int]:
        return [number for (number,) in rows(self._conninfo, "select number from numbers")]

    @contextmanager
    def away(self) -> Iterator[None]:
        self._way.down = True
        self._way.cut()
        yield
        self._way.down = False

    def refused(self) -> str:
        wrong = make_conninfo(self._conninfo, user="nobody-we-know", password="hunter2")
        with pytest.raises(OperatorError) as refused:
            store(wrong).standing(TOPIC)
        assert "hunter2" not in str(refused.value)
        assert str(conninfo_to_dict(self._conninfo).get("password")) not in str(refused.value)
        return str(refused.value)


@pytest.fixture
def subject(migrated_url: str) -> Iterator[Sealed]:
    with psycopg.connect(migrated_url) as connection:
        connection.execute("create table numbers (number int)")
    with wire(migrated_url) as way:
        yield Sealed(migrated_url, way)


class TestTimescale(Contract):
    """See ``Contract``."""
