"""What a team would write in an afternoon, with aiohttp: read, decode, map, gather one POST an event, commit."""

import asyncio

import aiohttp

from tests.bench.contenders.common import HEADERS, Orders
from tests.bench.contenders.naive import consume


async def main() -> None:
    orders = Orders.given()
    connector = aiohttp.TCPConnector(limit=orders.connections, ssl=orders.tls() or True)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=HEADERS) as session:

        async def post(body: str) -> None:
            async with session.post(orders.endpoint, data=body) as answer:
                answer.raise_for_status()
                await answer.read()

        await consume(orders, post, batch_records=orders.in_flight)


if __name__ == "__main__":
    asyncio.run(main())
