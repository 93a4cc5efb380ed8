"""The share of an independent process: "0/2" is the first of two, "1/2" the second.

Rule: what is numbered p belongs to share p % n. Shares are given at the start and never move; two processes with one
share are fenced off from each other (a log) or take each other's sessions over (MQTT), and say so.
"""

from collections.abc import Sequence
from typing import TypeVar

from schemas.errors import OperatorError

T = TypeVar("T")


def read_share(share: str) -> tuple[int, int]:
    """Which share of how many. Raises ``OperatorError``."""
    mine, slash, of = share.partition("/")
    if not (slash and mine.isdigit() and of.isdigit() and int(mine) < int(of)):
        raise OperatorError(f'The share "{share}" must be like "0/2", the first of two, or "1/2", the second.')
    return int(mine), int(of)


def take_share(share: str, clients: Sequence[T]) -> Sequence[T]:
    """The MQTT clients of ``share``. Raises ``OperatorError`` where there is none for it."""
    mine, of = read_share(share)
    if not (taken := clients[mine::of]):
        raise OperatorError(
            f"mqtt.clients is {len(clients)}: none for share {share}. Run at most {len(clients)} shares."
        )
    return taken
