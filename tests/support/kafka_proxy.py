"""A proxy before a broker that can also change what it says.

- `no_brokers`: it knows of no broker. So answers one that fences itself, while the cluster is rolled or its own process
  was frozen: the topics are there, the list of brokers is empty.
- `fenced`: to each heartbeat it says that the group has gone on without the member. So answers a coordinator that has
  just taken over, or has not heard the member for too long.
"""

import asyncio
from typing import Final

from tests.support.proxy import Proxy, Read

METADATA: Final = 3
FLEXIBLE_SINCE: Final = 9
"""Version of the metadata API from which lists are compact and fields can be tagged."""
FENCED: Final = {12: (12, 22), 68: (13, 110)}
"""API keys of heartbeats (classic versions 1 to 3, and KIP-848), where their answers have the error, and which."""


class KafkaProxy(Proxy):
    """Reads whole requests and answers, and knows which answers tell the brokers."""

    def _reads(self, requests: asyncio.StreamReader, answers: asyncio.StreamReader) -> tuple[Read, Read]:
        asked: dict[bytes, int] = {}

        async def request() -> bytes:
            frame = await _frame(requests)
            api, version = int.from_bytes(frame[4:6]), int.from_bytes(frame[6:8])
            if api in FENCED or (api == METADATA and version >= FLEXIBLE_SINCE):
                asked[frame[8:12]] = api
            return frame

        async def answer() -> bytes:
            frame = await _frame(answers)
            api = asked.pop(frame[4:8], None)
            if api == METADATA and self.mode == "no_brokers":
                return without_brokers(frame)
            if api in FENCED and self.mode == "fenced":
                at, error = FENCED[api]
                return frame[:at] + error.to_bytes(2) + frame[at + 2 :]
            return frame

        return request, answer


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """Return a message with its size before it; nothing when there is no more."""
    try:
        size = await reader.readexactly(4)
        return size + await reader.readexactly(int.from_bytes(size))
    except asyncio.IncompleteReadError:
        return b""


def without_brokers(frame: bytes) -> bytes:
    """Return an answer to a metadata request (size, correlation id, tags, throttle time, brokers, ...) without them."""
    start = _tags_end(frame, 8) + 4
    count, at = _varint(frame, start)
    for _ in range(count - 1):
        at += 4  # its id
        size, at = _varint(frame, at)
        at += size - 1 + 4  # its host and port
        size, at = _varint(frame, at)
        at += max(0, size - 1)  # its rack
        at = _tags_end(frame, at)
    body = frame[4:start] + b"\x01" + frame[at:]
    return len(body).to_bytes(4) + body


def _tags_end(frame: bytes, at: int) -> int:
    count, at = _varint(frame, at)
    for _ in range(count):
        _, at = _varint(frame, at)
        size, at = _varint(frame, at)
        at += size
    return at


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (frame[at] & 0x7F) << shift
        shift += 7
        at += 1
        if frame[at - 1] < 0x80:
            return value, at
