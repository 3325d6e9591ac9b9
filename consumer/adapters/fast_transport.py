"""`ports.Transport`, the fast one: a fixed number of kept connections, and O(1) work for each request.

Stands beside `httpx_transport` because a general client looks at every pooled connection for every request. Here a free
connection is the end of a stack (the last used goes out first, so that what isn't needed can grow old and close), a
send that finds none waits in a queue, and all clocks are one timer: it compares the time with the earliest moment at
which anything could be due.
"""

import asyncio
import selectors
import socket
import ssl
from collections import deque
from contextlib import suppress
from math import inf
from typing import NamedTuple

from consumer.adapters.fast_connection import Connection
from consumer.adapters.fast_request import Endpoint, RequestWriter
from consumer.core.outcome import Fault
from consumer.ports import Answered, Clock, Request, last_moment

_TICK_S = 0.05
_TLS_GOODBYE_S = 2.0
_AGE_STEPS = 16
_AGE_SPREAD = 0.25


class _Waiting(NamedTuple):
    request: bytes
    send_by: float
    deadline: float
    answered: Answered


class FastTransport:
    """POSTs to one endpoint. `connections_opened`, `open`, `busy` and `waiting` are numbers for the metrics."""

    def __init__(
        self,
        endpoint: str,
        *,
        connections: int,
        connect_timeout_s: float,
        idle_timeout_s: float,
        max_connection_age_s: float,
        ssl_context: ssl.SSLContext | None,
        user_agent: str,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Prepare; nothing is opened before the first send.

        Args:
            endpoint: an http or https URL.
            connections: never more than these; opened when a send has to wait.
            connect_timeout_s: for name, connection and TLS together.
            idle_timeout_s: an unused connection closes after it, or earlier if the server says `Keep-Alive: timeout=`.
            max_connection_age_s: no connection is asked beyond this age, so that a moved endpoint is followed.
            ssl_context: needed for https, and only there.
            user_agent: what a request without its own says we are.
            clock: what deadlines are measured by.
            loop: the one that calls `send`.
        """
        self._endpoint = Endpoint.parse(endpoint)
        if self._endpoint.is_tls != (ssl_context is not None):
            raise ValueError("endpoint: an https URL needs an SSL context, an http URL takes none")
        self._writer = RequestWriter(self._endpoint, user_agent)
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._max_age_s = max_connection_age_s
        self._ssl_context = ssl_context
        self._clock = clock
        self._loop = loop

        self._free: dict[Connection, None] = {}  # a stack, with O(1) removal from within
        self._open: set[Connection] = set()
        self._closing: set[Connection] = set()
        self._waiting: deque[_Waiting] = deque()
        self._connecting: set[asyncio.Task[Connection | Fault]] = set()
        self._selector = selectors.DefaultSelector()
        self._news: set[Connection] | None = None
        """On which connections something waits to be read, as of this round of the event loop."""
        self._due = inf
        self._timer: asyncio.TimerHandle | None = None
        self._closed: asyncio.Event | None = None
        self.connections_opened = 0

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def busy(self) -> int:
        return len(self._open) - len(self._free)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    # -- the port

    def send(self, request: Request, deadline: float, answered: Answered) -> None:
        """See `ports.Transport.send`."""
        data = self._writer.write(request)
        now = self._clock.monotonic()
        if deadline <= now or self._closed is not None:
            self._loop.call_soon(answered, Fault.TIMEOUT_UNSENT)
            return
        if deadline < self._due:  # noqa: PLR1730  # for each event, and min() is four times as slow
            self._due = deadline
        while self._free:
            connection, _ = self._free.popitem()
            if connection.expires_at > now and connection.is_clean():
                connection.ask(data, deadline, answered)
                return
            connection.drop(politely=True)
        send_by = last_moment(now, deadline)
        self._due = min(self._due, send_by)
        self._waiting.append(_Waiting(data, send_by, deadline, answered))
        self._connect_as_needed()
        self._start_ticking()

    async def close(self) -> None:
        """See `ports.Transport.close`."""
        if self._closed is None:
            self._closed = asyncio.Event()
            if self._timer is not None:
                self._timer.cancel()
            for task in self._connecting:
                task.cancel()
            unsent, self._waiting = self._waiting, deque()
            for connection in tuple(self._open):
                if connection.is_busy:
                    connection.give_up(Fault.RESET)
                else:
                    connection.drop(politely=False)
            for waiting in unsent:
                waiting.answered(Fault.TIMEOUT_UNSENT)
            self._note_closed()
        await self._closed.wait()
        self._selector.close()

    # -- what connections report

    def freed(self, connection: Connection) -> None:
        """Give *connection* to the first that waits, or keep it for the next send."""
        now = self._clock.monotonic()
        if self._waiting:
            self._news = None
        elif self._news is not None:
            self._news.discard(connection)  # its answer, which is read by now
        if connection.retires_at <= now or connection.keep_alive_s <= 0:
            connection.drop(politely=True)
            return
        while self._waiting:
            if not connection.is_clean():
                connection.drop(politely=False)
                return
            request, send_by, deadline, answered = self._waiting.popleft()
            if send_by > now:
                connection.ask(request, deadline, answered)
                return
            answered(Fault.TIMEOUT_UNSENT)
        idle_until = now + min(self._idle_timeout_s, connection.keep_alive_s)
        connection.expires_at = min(idle_until, connection.retires_at)
        self._due = min(self._due, connection.expires_at)
        self._free[connection] = None

    def watch(self, connection: Connection) -> None:
        """See `fast_connection.Owner.watch`."""
        with suppress(KeyError):  # the event loop has closed another one of this number, and tells later
            self._selector.unregister(connection.number)
        self._selector.register(connection.number, selectors.EVENT_READ, connection)

    def has_news(self, connection: Connection) -> bool:
        """See `fast_connection.Owner.has_news`. One question to the kernel for all that is sent in a round."""
        news = self._news
        if news is None:
            news = self._news = {key.data for key, _ in self._selector.select(0)}
            self._loop.call_soon(self._forget_news)
        return connection in news

    def _forget_news(self) -> None:
        self._news = None

    def dropped(self, connection: Connection) -> None:
        """Make room: another connection may be opened in place of *connection*."""
        key = self._selector.get_map().get(connection.number)
        if key is not None and key.data is connection:
            self._selector.unregister(connection.number)
        self._free.pop(connection, None)
        self._open.discard(connection)
        self._closing.add(connection)
        self._connect_as_needed()

    def gone(self, connection: Connection) -> None:
        """Forget *connection* altogether."""
        self._closing.discard(connection)
        self._note_closed()

    def _note_closed(self) -> None:
        if self._closed is not None and not self._open and not self._closing and not self._connecting:
            self._closed.set()

    # -- connecting

    def _connect_as_needed(self) -> None:
        """Connect for those that wait, as far as they have no attempt under way and the limit allows."""
        while len(self._connecting) < min(len(self._waiting), self._connections - len(self._open)):
            task = self._loop.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connect_ended)

    async def _connect(self) -> Connection | Fault:
        connection = Connection(self, is_tls=self._endpoint.is_tls)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._loop.create_connection(
                    lambda: connection,
                    self._endpoint.host,
                    self._endpoint.port,
                    ssl=self._ssl_context,
                    ssl_shutdown_timeout=_TLS_GOODBYE_S if self._ssl_context else None,
                )
        except OSError as error:
            connection.drop(politely=False)
            return _connect_fault(error)
        except asyncio.CancelledError:
            connection.drop(politely=False)
            raise
        return connection

    def _connect_ended(self, task: asyncio.Task[Connection | Fault]) -> None:
        self._connecting.discard(task)
        if task.cancelled():
            self._note_closed()
            return
        connection = task.result()
        self._news = None
        if isinstance(connection, Fault):
            self._fail_one(connection)
        elif self._closed is not None or not connection.is_clean():
            # closed again or speaking before it was asked: as good as refused
            connection.drop(politely=False)
            self._fail_one(Fault.CONNECT)
        else:
            age_s = self._max_age_s * (1 - _AGE_SPREAD * (self.connections_opened % _AGE_STEPS) / _AGE_STEPS)
            connection.retires_at = self._clock.monotonic() + age_s  # spread, or all reconnect at once
            self.connections_opened += 1
            self._open.add(connection)
            self._start_ticking()
            self.freed(connection)

    def _fail_one(self, fault: Fault) -> None:
        """Tell the first that waits. One for each failed attempt: nobody hangs, and attempts never outrun sends."""
        now = self._clock.monotonic()
        while self._waiting:
            first = self._waiting.popleft()
            if first.send_by > now:
                first.answered(fault)
                break
            first.answered(Fault.TIMEOUT_UNSENT)
        self._connect_as_needed()
        self._note_closed()

    # -- time

    def _start_ticking(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.sweep()
        if (self._open or self._waiting) and self._closed is None:
            self._start_ticking()

    def sweep(self) -> None:
        """End what is over: deadlines of requests, idle time and age of connections. Cheap when nothing is due."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        self._due = inf
        late: list[_Waiting] = []
        in_time: deque[_Waiting] = deque()
        for waiting in self._waiting:
            if waiting.send_by <= now:
                late.append(waiting)
            else:
                in_time.append(waiting)
                self._due = min(self._due, waiting.send_by)
        self._waiting = in_time
        for connection in tuple(self._open):
            if connection.is_busy:
                if connection.deadline <= now:
                    connection.give_up(Fault.TIMEOUT)
                else:
                    self._due = min(self._due, connection.deadline)
            elif connection.expires_at <= now:
                connection.drop(politely=True)
            else:
                self._due = min(self._due, connection.expires_at)
        for waiting in late:
            waiting.answered(Fault.TIMEOUT_UNSENT)


def _connect_fault(error: OSError) -> Fault:
    if isinstance(error, socket.gaierror):
        return Fault.DNS
    # not its other subclasses: end of file is a closing peer, not a wrong one
    if type(error) in {ssl.SSLError, ssl.SSLCertVerificationError}:
        return Fault.TLS
    return Fault.CONNECT  # refused, unreachable, too slow, or hung up during the handshake
