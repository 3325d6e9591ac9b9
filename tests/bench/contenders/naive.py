"""The loop of the naive consumers: a batch is read, all of it is posted, then it is committed."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from confluent_kafka import Consumer

from tests.bench.contenders.common import Orders, asked_to_stop, decoder, payload, read

POLL_S = 0.1


async def consume(orders: Orders, post: Callable[[str], Awaitable[None]], *, batch_records: int) -> None:
    """Consume until SIGTERM, so many records at a time. A failed POST ends the process: the harness sees it."""
    decode = decoder()
    stop = asked_to_stop()
    consumer = Consumer(orders.kafka(**{"enable.auto.commit": False}))
    consumer.subscribe([orders.topic])
    while not stop.is_set():
        batch = await asyncio.to_thread(read, consumer, batch_records, POLL_S)
        if batch:
            await asyncio.gather(*[post(json.dumps(payload(decode(value)))) for _, _, value in batch])
            await asyncio.to_thread(consumer.commit, asynchronous=False)
    consumer.close()
