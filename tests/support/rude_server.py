"""An HTTP server at socket level that does exactly what a test tells it to, good manners or not."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Self

OK_BODY = b'{"success":"1"}'


def answer(body: bytes = OK_BODY, status: str = "200 OK", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"HTTP/{version} {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


class Received(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class Conversation:
    """One accepted connection, from the server's side."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self._writer = writer

    async def request(self) -> Received | None:
        """Read one request; None when the client has gone."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        return Received(head[0], headers, body)

    async def say(self, *parts: bytes) -> None:
        """Send each part by itself."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0)  # lets the client's side of the loop read it alone

    def write(self, data: bytes) -> None:
        """Begin to send *data*; what is said next may travel with it."""
        self._writer.write(data)

    async def until_gone(self) -> None:
        """Wait for the client to close, ignoring what it says."""
        try:
            while await self.reader.read(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            pass

    def send_now(self, data: bytes) -> int:
        """Put *data* into the client's kernel buffer before this returns, behind the back of its event loop."""
        return os.write(self._writer.get_extra_info("socket").fileno(), data)

    def end_now(self) -> None:
        """Put the end of the connection into the client's kernel buffer, likewise."""
        with socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Close, and return when that is done."""
        self._writer.close()
        await self._writer.wait_closed()

    def reset(self) -> None:
        """Close with a TCP RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Behaviour = Callable[[Conversation], Awaitable[None]]


class RudeServer:
    """`async with RudeServer(behaviour) as server`: *behaviour* is run for each connection, which then closes."""

    def __init__(
        self, behaviour: Behaviour, ssl_context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._behaviour = behaviour
        self._ssl_context = ssl_context
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self._ssl_context, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        scheme = "https" if self._ssl_context else "http"
        self.url = f"{scheme}://{self._host}:{self.port}/track/json"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            await self._behaviour(Conversation(self.accepted, reader, writer))
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass  # the client went first, or the test is over
        except RuntimeError:
            if not writer.transport.is_closing():  # uvloop's word for it
                raise
        finally:
            self._tasks.discard(task)
            writer.close()


def always(*parts: bytes) -> Behaviour:
    """Answer every request with *parts*."""

    async def behave(conversation: Conversation) -> None:
        while await conversation.request() is not None:
            await conversation.say(*parts)

    return behave


def once(*parts: bytes) -> Behaviour:
    """Answer one request with *parts*, then close."""

    async def behave(conversation: Conversation) -> None:
        if await conversation.request() is not None:
            await conversation.say(*parts)

    return behave


def silent() -> Behaviour:
    """Never answer."""
    return Conversation.until_gone
