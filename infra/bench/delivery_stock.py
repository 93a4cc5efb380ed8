"""Receivers to compare ingest with, as people write them on gmqtt: ``… delivery_stock KIND URL TOPIC_FILTER TOTAL``.

- ``stock``: gmqtt as its README shows it: acknowledges by itself before the handler, which drops the message.
- ``future``: a future a message, set when an epoch of 200 ms ends: the obvious way to acknowledge late.

It says ``time.perf_counter()``, a line each, when the first and when the last of TOTAL messages has come.
"""

import asyncio
import sys
import time
from urllib.parse import urlsplit

from gmqtt import Client

EPOCH_SECS = 0.2
CLIENT_ID = "bench-0"


async def receive(kind: str, url: str, topic_filter: str, total: int) -> None:
    client = Client(
        CLIENT_ID,
        clean_session=False,
        session_expiry_interval=600,
        optimistic_acknowledgement=kind == "stock",
        receive_maximum=65_535,
    )
    waiting: list[asyncio.Future[int]] = []
    count = 0

    def drop(*_message: object) -> int:
        nonlocal count
        count += 1
        if count == 1 or count == total:
            print(time.perf_counter(), flush=True)
        return 0

    async def wait(*message: object) -> int:
        drop(*message)
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
    asyncio.run(receive(*sys.argv[1:4], int(sys.argv[4])))
