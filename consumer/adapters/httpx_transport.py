"""`ports.Transport` by httpx, for whatever is unusual: a proxy today, odd certificate stores tomorrow.

Slower by far, with the same rules. Each connection is a pool of its own, since httpx's pool looks at every connection
for every other one at each request. httpx's client is left out, and with it all that it does by itself for convenience
(cookies, redirects, decoding, the environment).
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx

from consumer.adapters.httpx_connection import Exchange, Line, fault_of
from consumer.core.outcome import Answer, Fault
from consumer.ports import Answered, Clock, Request, last_moment

_READ_S = 0.05
"""How long the event loop may take to read what is here already."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "te", "upgrade"})


class HttpxTransport:
    """POSTs to one endpoint. `connections_opened`, `open`, `busy` and `waiting` are numbers for the metrics."""

    def __init__(
        self,
        endpoint: str,
        *,
        connections: int,
        connect_timeout_s: float,
        idle_timeout_s: float,
        ssl_context: ssl.SSLContext | None,
        user_agent: str,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        proxy: str | None = None,
    ) -> None:
        """Prepare; nothing is opened before the first send. httpx has no maximum age of a connection.

        Args:
            endpoint: an http or https URL.
            connections: never more than these.
            connect_timeout_s: for the connection and, again, for TLS.
            idle_timeout_s: an unused connection closes after it, when something is sent.
            ssl_context: needed for https, and only there; an https proxy is verified by it as well.
            user_agent: what a request without its own says we are.
            clock: what deadlines are measured by.
            loop: the one that calls `send`.
            proxy: the URL of an HTTP proxy; the environment is not asked.
        """
        self._url = httpx.URL(endpoint)
        if self._url.scheme not in {"http", "https"} or not self._url.host or self._url.userinfo or self._url.fragment:
            raise ValueError("endpoint: expected http(s)://host[:port]/path, without credentials and fragment")
        if (self._url.scheme == "https") != (ssl_context is not None):
            raise ValueError("endpoint: an https URL needs an SSL context, an http URL takes none")
        self._ssl_context = ssl_context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody: never used
        is_tls_proxy = proxy is not None and httpx.URL(proxy).scheme == "https"
        self._proxy = None if proxy is None else httpx.Proxy(proxy, ssl_context=ssl_context if is_tls_proxy else None)
        self._idle_timeout_s = idle_timeout_s
        # the deadline bounds all the rest, in one: a timeout of httpx starts anew with every read
        self._timeouts = {"connect": connect_timeout_s}
        self._headers = httpx.Headers(
            {
                "User-Agent": user_agent,
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            }
        )
        self._clock = clock
        self._loop = loop
        self._slots = asyncio.Semaphore(connections)
        self._lines: set[Line] = set()
        self._free: deque[Line] = deque()
        """The last used goes out first, so that what isn't needed grows old at the other end."""
        self._exchanges: set[asyncio.Task[Answer | Fault]] = set()
        self._is_closed = False
        self.connections_opened = 0
        self.busy = 0
        self.waiting = 0

    @property
    def open(self) -> int:
        return sum(line.is_open for line in self._lines)

    # -- the port

    def send(self, request: Request, deadline: float, answered: Answered) -> None:
        """See `ports.Transport.send`."""
        _check_headers(request)
        now = self._clock.monotonic()
        if deadline <= now or self._is_closed:
            self._loop.call_soon(answered, Fault.TIMEOUT_UNSENT)
            return
        exchange = Exchange(self._connected, self._clock, last_moment(now, deadline))
        task = self._loop.create_task(self._post(exchange, request, deadline))
        self._exchanges.add(task)
        task.add_done_callback(partial(self._ended, exchange, answered))

    def _connected(self) -> None:
        self.connections_opened += 1

    async def close(self) -> None:
        """See `ports.Transport.close`."""
        self._is_closed = True
        outstanding = tuple(self._exchanges)
        for task in outstanding:
            task.cancel()
        if outstanding:
            await asyncio.wait(outstanding)
        for line in tuple(self._lines):
            with suppress(OSError):  # as in `schema_source`
                await line.close()

    # -- one exchange

    def _ended(self, exchange: Exchange, answered: Answered, task: asyncio.Task[Answer | Fault]) -> None:
        self._exchanges.discard(task)
        if task.cancelled():  # by close, perhaps before its first step
            answered(Fault.RESET if exchange.was_sent else Fault.TIMEOUT_UNSENT)
        else:
            answered(task.result())

    async def _post(self, exchange: Exchange, request: Request, deadline: float) -> Answer | Fault:
        try:
            async with self._until(deadline):
                await self._close_idle()
                self.waiting += 1
                try:
                    async with asyncio.timeout(exchange.send_by - self._clock.monotonic()):
                        await self._slots.acquire()
                finally:
                    self.waiting -= 1
                self.busy += 1
                line = self._free.pop() if self._free else self._new_line()
                try:
                    return await self._ask(line, exchange, request)
                except BaseException:
                    await line.close()  # whatever state it is in
                    raise
                finally:
                    line.idle_since = self._clock.monotonic()
                    self._free.append(line)
                    self.busy -= 1
                    self._slots.release()
        except TimeoutError:
            return Fault.TIMEOUT if exchange.was_sent else Fault.TIMEOUT_UNSENT
        except httpx.TransportError as error:
            return fault_of(error, was_sent=exchange.was_sent)
        except OSError:  # without descriptors not even the library's late imports work
            return Fault.RESET if exchange.was_sent else Fault.CONNECT

    @asynccontextmanager
    async def _until(self, deadline: float) -> AsyncIterator[None]:
        """End what is within after *deadline*, as `asyncio.timeout` does; but what has arrived by then is read first.

        Timers go before sockets: when the event loop is late, an answer that is here would be thrown away.
        """
        async with asyncio.timeout(None) as limit:
            timer = self._loop.call_later(
                deadline - self._clock.monotonic(), lambda: limit.reschedule(self._loop.time() + _READ_S)
            )
            try:
                yield
            finally:
                timer.cancel()

    async def _ask(self, line: Line, exchange: Exchange, request: Request) -> Answer | Fault:
        headers = self._headers.copy()
        headers.update(request.headers)
        extensions = {"trace": exchange.trace, "timeout": self._timeouts}
        return await line.ask(
            httpx.Request("POST", self._url, headers=headers, content=request.body, extensions=extensions)
        )

    # -- the connections

    def _new_line(self) -> Line:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._idle_timeout_s)
        line = Line(
            httpx.AsyncHTTPTransport(verify=self._ssl_context, trust_env=False, proxy=self._proxy, limits=limits)
        )
        self._lines.add(line)
        return line

    async def _close_idle(self) -> None:
        oldest = self._clock.monotonic() - self._idle_timeout_s
        while self._free and self._free[0].idle_since <= oldest:
            line = self._free.popleft()
            self._lines.discard(line)
            await line.close()


def _check_headers(request: Request) -> None:
    """Refuse what would end a line or change the framing, here and not in a task: it is our bug."""
    for name, value in request.headers:
        if name.lower() in _FRAMING:
            raise ValueError(f"header {name}: belongs to the transport")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name!r}: name or value isn't printable ASCII on one line")
