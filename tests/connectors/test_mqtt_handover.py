"""gmqtt's own handlers wait for the flush that acknowledges their messages, and for no other."""

import asyncio

import pytest

from connectors.mqtt_handover import GROUP_MAX, Handover


@pytest.mark.parametrize("lasts", [(2, 5), (1, GROUP_MAX + 80), (GROUP_MAX, GROUP_MAX + 1, GROUP_MAX + 80)])
def test_acknowledged_twice_before_a_handler_runs_none_waits_on(lasts: tuple[int, ...]) -> None:
    """A busy loop hears of several flushes at once; of a group that went in parts the rest waited on for ever."""

    async def returned() -> list[int]:
        handover = Handover(lambda _publish: None)
        waiting = [asyncio.ensure_future(handover.on_message(None, "t", b"", 1, {})) for _ in range(lasts[-1] + 3)]
        await asyncio.sleep(0)
        before = 0
        for last in lasts:
            handover.acknowledge(range(before + 1, last + 1))
            before = last
        await handover.settle()
        done = [number for number, one in enumerate(waiting, 1) if one.done()]
        await handover.end()
        await asyncio.gather(*waiting)
        return done

    assert asyncio.run(returned()) == [*range(1, lasts[-1] + 1)]
