"""Receivers to compare ingest with, as people write them on gmqtt: `… delivery_stock KIND URL TOPIC`.

- ``stock``: gmqtt as its README shows it: acknowledges by itself before the handler, which drops the message.
- ``future``: a future a message, set when an epoch of 200 ms ends: the obvious way to acknowledge late.
"""

import asyncio
import sys
from urllib.parse import urlsplit

from gmqtt import Client

EPOCH_SECS = 0.2


async def receive(kind: str, url: str, topic_filter: str) -> None:
    client = Client("bench", clean_session=True, optimistic_acknowledgement=kind == "stock", receive_maximum=65_535)
    waiting: list[asyncio.Future[int]] = []

    def drop(*_message: object) -> int:
        return 0

    async def wait(*_message: object) -> int:
        durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting.append(durable)
        return await durable

    client.on_message = drop if kind == "stock" else wait
    parts = urlsplit(url)
    await client.connect(parts.hostname, parts.port)
    client.subscribe(topic_filter, qos=1)
    while client.is_connected:
        await asyncio.sleep(EPOCH_SECS)
        epoch, waiting = waiting, []
        for durable in epoch:
            durable.set_result(0)


if __name__ == "__main__":
    asyncio.run(receive(*sys.argv[1:]))
