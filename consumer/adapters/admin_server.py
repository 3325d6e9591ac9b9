"""Probes and metrics over HTTP: four pages, read only, answered from plain fields.

Everything a client can take is bounded: the size of its request, the time of the whole exchange, the number of
connections. When they are all taken the oldest goes, so that clients which hold theirs open can't keep a probe out.
"""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple

from consumer.errors import SettingsError
from consumer.health import Health, Verdict
from consumer.ports import Clock
from consumer.telemetry import Metrics, log

MAX_REQUEST_BYTES = 8192
MAX_CONNECTIONS = 64
MAX_ACCEPTED_AT_ONCE = 16
"""Far fewer than the connections: what is accepted first in a flood is answered before the rest pushes it out."""
EXCHANGE_TIMEOUT_S = 5.0
MAX_UNREAD_BYTES = 65_536
"""What may still come after the answer: closing on unread bytes resets the connection and destroys the answer."""

PATHS = ("/livez", "/readyz", "/startupz", "/metrics")
_TEXT = "text/plain; charset=utf-8"


class _Page(NamedTuple):
    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    more: str = ""
    """Further header lines, each ended."""

    def encode(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n{self.more}"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + self.body


class AdminServer:
    """Serves /livez, /readyz, /startupz and /metrics on *listen* (host:port; empty: nowhere). Lives on the loop."""

    def __init__(
        self,
        listen: str,
        health: Health,
        metrics: Metrics,
        clock: Clock,
        *,
        exchange_timeout_s: float = EXCHANGE_TIMEOUT_S,
    ) -> None:
        self._listen = listen
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._exchange_timeout_s = exchange_timeout_s
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        """Oldest first."""

    async def start(self) -> None:
        """Listen.

        Raises:
            SettingsError: the address can't be had.
        """
        if not self._listen:
            return
        host, port = parse_listen(self._listen)
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, limit=MAX_REQUEST_BYTES, backlog=MAX_ACCEPTED_AT_ONCE
            )
        except OSError as error:
            problem = (
                f"admin.listen: cannot listen on {self._listen} ({error.strerror or type(error).__name__}): "
                "end what uses the port, choose another, or leave it empty for none"
            )
            raise SettingsError([problem]) from error
        log.info("admin.listening", port=self.port)

    @property
    def port(self) -> int | None:
        """The port that it listens on, which the system chose if 0 was asked for; None: it doesn't listen."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server and self._server.sockets else None

    async def close(self) -> None:
        """Stop listening, and drop whoever is still there."""
        if self._server is None:
            return
        self._server.close()
        exchanges = list(self._open.values())
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)
        await self._server.wait_closed()

    # -- one exchange

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            oldest, exchange = next(iter(self._open.items()))
            del self._open[oldest]
            exchange.cancel()
        task = asyncio.get_running_loop().create_task(self._exchange(reader, writer))
        self._open[writer] = task
        task.add_done_callback(lambda _: self._open.pop(writer, None))

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # a client that goes away or is too slow is no news
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(self._exchange_timeout_s):
                    await self._converse(reader, writer)
        finally:
            writer.transport.abort()  # whatever was not taken in time is dropped

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            page = _Page(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"the request is too large\n")
        except asyncio.IncompleteReadError:
            return
        else:
            page = self._page(head)
        writer.write(page.encode())
        writer.write_eof()
        await writer.drain()
        unread = MAX_UNREAD_BYTES
        while unread > 0 and (more := await reader.read(MAX_REQUEST_BYTES)):
            unread -= len(more)

    def _page(self, head: bytes) -> _Page:
        request_line, *headers = head.decode("latin-1").split("\r\n")
        words = request_line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _Page(HTTPStatus.BAD_REQUEST, b"this is not an HTTP/1.1 request\n")
        method, target, _ = words
        path = target.partition("?")[0]
        if path not in PATHS:
            return _Page(HTTPStatus.NOT_FOUND, f"there is {', '.join(PATHS)}\n".encode())
        if method != "GET":
            return _Page(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n", more="Allow: GET\r\n")
        match path:
            case "/livez":
                return _verdict(self._health.live(self._clock.monotonic()))
            case "/readyz":
                return _verdict(self._health.ready())
            case "/startupz":
                return _verdict(self._health.startup())
            case _:
                body, content_type = self._metrics.render(_header(headers, "accept"))
                return _Page(HTTPStatus.OK, body, content_type)


def parse_listen(listen: str) -> tuple[str, int]:
    """Split host:port; an IPv6 address stands in brackets.

    Raises:
        SettingsError: it is no such thing.
    """
    host, _, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not port.isdecimal() or int(port) > 65_535:
        raise SettingsError([f"admin.listen: {listen!r}: write host:port, such as 127.0.0.1:9464 or [::1]:9464"])
    return bare, int(port)


def _verdict(verdict: Verdict) -> _Page:
    status = HTTPStatus.OK if verdict.is_well else HTTPStatus.SERVICE_UNAVAILABLE
    return _Page(status, "".join(f"{line}\n" for line in verdict.reasons or ("ok",)).encode())


def _header(lines: list[str], name: str) -> str:
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""
