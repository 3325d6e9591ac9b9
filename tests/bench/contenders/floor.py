"""The floor: the least that decodes, maps and posts every event and commits no further than what was answered.

No policies, retries, limits, metrics, checks. A thread reads; the event loop has one protocol object per connection,
which takes the next record when its answer is complete. What the consumer needs beyond this is what its safety costs.
"""

import asyncio
import gc
import signal
import threading
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import httptools
import orjson
import uvloop
from confluent_kafka import Consumer, TopicPartition

from tests.bench.contenders.common import Orders, decoder, payload, read

if TYPE_CHECKING:
    from collections.abc import Callable

READ_RECORDS = 500
POLL_S = 0.05

Read = tuple[int, int, bytes]
"""Partition, offset, value."""


class Position:
    """The next offset of a partition to commit."""

    def __init__(self, start: int) -> None:
        self.next = start
        self._done: set[int] = set()

    def settle(self, offset: int) -> None:
        if offset != self.next:
            self._done.add(offset)
            return
        offset += 1
        while offset in self._done:
            self._done.remove(offset)
            offset += 1
        self.next = offset


class Floor:
    """The state, on the event loop. The reading thread looks at `taken` and `settled`, which have one writer each."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.queue: deque[Read] = deque()
        self.idle: list[Lane] = []
        self.positions: dict[int, Position] = {}
        self.taken = self.settled = 0
        self.is_over = False
        self.decode = decoder()
        url = urlsplit(orders.endpoint)
        self.head = (
            f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: floor\r\n"
            "Content-Type: application/json\r\nAccept: application/json\r\nContent-Length: "
        ).encode()

    def take(self, batch: list[Read]) -> None:
        for partition, offset, _ in batch:
            if partition not in self.positions:
                self.positions[partition] = Position(offset)
        self.queue.extend(batch)
        while self.idle and self.queue:
            self.idle.pop().ask()

    def read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Consume, in a thread of its own, until it is over."""
        consumer = Consumer(self.orders.kafka(**{"enable.auto.offset.store": False, "auto.commit.interval.ms": 1000}))
        consumer.subscribe([self.orders.topic])
        stored: dict[int, int] = defaultdict(lambda: -1)
        while not self.is_over:
            if self.taken - self.settled < self.orders.in_flight:
                batch: list[Read] = read(consumer, READ_RECORDS, POLL_S)
                self.taken += len(batch)
                if batch:
                    loop.call_soon_threadsafe(self.take, batch)
            else:
                threading.Event().wait(0.001)
            self._store(consumer, stored)
        self._store(consumer, stored)
        consumer.close()

    def _store(self, consumer: Consumer, stored: dict[int, int]) -> None:
        moved = [(at, position.next) for at, position in list(self.positions.items()) if position.next != stored[at]]
        if moved:
            consumer.store_offsets(offsets=[TopicPartition(self.orders.topic, at, offset) for at, offset in moved])
            stored.update(moved)


class Lane(asyncio.Protocol):
    """One connection: a request out, its answer in, then the next."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._parser = httptools.HttpResponseParser(self)
        self._write: Callable[[bytes], Any] | None = None
        self._partition = self._offset = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.Transport", transport).write

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._floor.is_over:
            raise SystemExit("the sink closed a connection")

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def ask(self) -> None:
        floor = self._floor
        self._partition, self._offset, value = floor.queue.popleft()
        body = orjson.dumps(payload(floor.decode(value)))
        assert self._write is not None
        self._write(b"%b%d\r\n\r\n%b" % (floor.head, len(body), body))

    def on_message_complete(self) -> None:
        floor = self._floor
        if self._parser.get_status_code() != 200:
            raise SystemExit("the sink refused an event")
        floor.positions[self._partition].settle(self._offset)
        floor.settled += 1
        if floor.queue:
            self.ask()
        else:
            floor.idle.append(self)


async def main() -> None:
    orders = Orders.given()
    floor = Floor(orders)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    url = urlsplit(orders.endpoint)
    assert url.hostname is not None
    assert url.port is not None
    for _ in range(orders.connections):
        _, lane = await loop.create_connection(lambda: Lane(floor), url.hostname, url.port, ssl=orders.tls())
        floor.idle.append(lane)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as the consumer does
    reader = threading.Thread(target=floor.read, args=(loop,))
    reader.start()
    await stop.wait()
    floor.is_over = True
    await asyncio.to_thread(reader.join)


if __name__ == "__main__":
    uvloop.run(main())
