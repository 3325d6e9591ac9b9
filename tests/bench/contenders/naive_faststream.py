"""The same on a framework: FastStream reads and commits batches (confluent-kafka below), aiohttp posts."""

import asyncio
import json
import logging

import aiohttp
from faststream import AckPolicy
from faststream.confluent import KafkaBroker

from tests.bench.contenders.common import HEADERS, Orders, asked_to_stop, decoder, payload


async def main() -> None:
    orders = Orders.given()
    decode = decoder()
    stop = asked_to_stop()
    connector = aiohttp.TCPConnector(limit=orders.connections, ssl=orders.tls() or True)
    timeout = aiohttp.ClientTimeout(total=None)
    broker = KafkaBroker(orders.bootstrap_servers, apply_types=False, log_level=logging.DEBUG)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=HEADERS) as session:

        async def post(value: bytes) -> None:
            async with session.post(orders.endpoint, data=json.dumps(payload(decode(value)))) as answer:
                answer.raise_for_status()
                await answer.read()

        @broker.subscriber(
            orders.topic, group_id=orders.group, auto_offset_reset="earliest", batch=True,
            max_records=orders.in_flight, ack_policy=AckPolicy.ACK, decoder=lambda message: message.body,
        )  # fmt: skip
        async def take(values: list[bytes]) -> None:
            await asyncio.gather(*map(post, values))

        async with broker:
            await broker.start()
            await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
