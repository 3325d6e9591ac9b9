"""What a team would write in an afternoon, with httpx: read, decode, map, gather one POST an event, commit."""

import asyncio

import httpx

from tests.bench.contenders.common import HEADERS, Orders
from tests.bench.contenders.naive import consume


async def main() -> None:
    orders = Orders.given()
    limits = httpx.Limits(
        max_connections=orders.connections, max_keepalive_connections=orders.connections, keepalive_expiry=None
    )
    async with httpx.AsyncClient(limits=limits, timeout=None, verify=orders.tls() or True, headers=HEADERS) as client:

        async def post(body: str) -> None:
            (await client.post(orders.endpoint, content=body)).raise_for_status()

        # each request that waits in httpx's pool costs every other one time: so none does
        await consume(orders, post, batch_records=min(orders.in_flight, orders.connections))


if __name__ == "__main__":
    asyncio.run(main())
