"""Messages handed over by gmqtt's own ``on_message``, and acknowledged late: the way where no ``Wire`` can be tapped.

gmqtt acknowledges a message when its handler, a coroutine, returns. So each message is a task that waits here. They
wait in groups, on one future a group, since a future a message costs as much again.

Where it ends: reading cannot be paused, so only the broker's honesty about ``receive_maximum`` bounds what is held; and
a message whose properties gmqtt cannot read is passed over by it, and keeps its place in the broker's window.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from connectors.mqtt_publish import Publish

GROUP_MAX: Final = 512


class Handover:
    """The messages of one connection, numbered from 1: a message's number stands for its packet id."""

    def __init__(self, on_publish: Callable[[Publish], None]) -> None:
        self._on_publish = on_publish
        self._number = 0
        self._acknowledged = 0  # a group that was let go twice before its handlers ran is not there to join anew
        self._groups: deque[tuple[int, asyncio.Future[None]]] = deque()  # each with the highest number that may join it
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over = False

    async def on_message(
        self, _client: Any, topic: str | bytes, payload: bytes, qos: int, properties: dict[str, Any]
    ) -> int:
        """gmqtt's handler: returns when the message may be acknowledged, or when its connection is gone."""
        if self._over:
            await asyncio.shield(self._gone)
            return 0
        text = topic if isinstance(topic, str) else topic.decode(errors="replace")
        content_type = properties.get("content_type", [None])[0]
        number = None
        if qos:
            number = self._number = self._number + 1
        self._on_publish(Publish(number, text, payload, content_type, bool(properties.get("dup"))))
        while number is not None and number > self._acknowledged and not self._gone.done():
            await self._group(number)
        return 0

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Let the handlers of messages up to the last of ``numbers``, which are in order, return."""
        self._acknowledged = last = numbers[-1]
        while self._groups and self._groups[0][0] <= last:
            self._groups.popleft()[1].set_result(None)
        if self._groups:
            # A group of which a part is acknowledged: the others join it anew.
            end, group = self._groups.popleft()
            self._groups.appendleft((end, asyncio.get_running_loop().create_future()))
            group.set_result(None)

    def lost(self) -> None:
        """The connection is gone or going: take nothing more."""
        self._over = True

    async def end(self) -> None:
        """Let every handler return. To be called once the transport is closed, so that no acknowledgement goes out."""
        self._over = True
        if not self._gone.done():
            self._gone.set_result(None)
        for _, group in self._groups:
            group.set_result(None)
        self._groups.clear()
        await self.settle()

    async def settle(self) -> None:
        """Let what may return do so, and gmqtt write its acknowledgement."""
        for _ in range(4):  # the future's callbacks, the handler, the task's callbacks
            await asyncio.sleep(0)

    def _group(self, number: int) -> "asyncio.Future[None]":
        if not self._groups or self._groups[-1][0] < number:
            self._groups.append((number + GROUP_MAX - 1, asyncio.get_running_loop().create_future()))
        end, newest = self._groups[-1]
        if number > end - GROUP_MAX:
            return newest
        return next(group for end, group in self._groups if number <= end)  # the first: it was acknowledged in part
