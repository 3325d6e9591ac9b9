"""`ports.Transport` by httpx, for whatever is unusual: a proxy today, odd certificate stores tomorrow.

Slower by far (its pool looks at every connection for every request), with the same rules: everything that httpx does by
itself for convenience (cookies, redirects, decoding, the environment) is switched off here, and what it does not look
at is looked at: bytes that came before a request or behind an answer would be read as the next event's answer.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from consumer.core.outcome import Answer, Fault
from consumer.ports import Answered, Clock, Request

HEAD_MAX_BYTES = 64 * 1024
HEADER_MAX_LINES = 128
BODY_MAX_BYTES = 64 * 1024
BODY_MAX_PIECES = 4096
"""Chunks of an answer. h11 takes 50 µs for each, a byte or not, and the event loop waits."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "te", "upgrade"})
_SENDING = ("http11.send_request_headers.started", "http2.send_request_headers.started")
_TLS_ERRORS = (ssl.SSLError, ssl.SSLCertVerificationError)
_CONNECTED = "connection.connect_tcp.complete"
_STREAMS = ("connect_tcp.complete", "start_tls.complete")
_READ_TO_ITS_END = "http11.receive_response_body.complete"


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
            idle_timeout_s: an unused connection closes after it.
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
        self._pool = httpx.AsyncHTTPTransport(
            verify=ssl_context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # the latter trusts nobody: never used
            trust_env=False,
            proxy=proxy,
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=idle_timeout_s
            ),
        )
        self._client = httpx.AsyncClient(
            transport=self._pool,
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            # the deadline bounds all the rest, in one: a timeout of httpx starts anew with every read
            timeout=httpx.Timeout(None, connect=connect_timeout_s),
            headers={
                "User-Agent": user_agent,
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )
        self._clock = clock
        self._loop = loop
        self._slots = asyncio.Semaphore(connections)
        self._exchanges: set[asyncio.Task[Answer | Fault]] = set()
        self._is_closed = False
        self.connections_opened = 0
        self.busy = 0
        self.waiting = 0

    @property
    def open(self) -> int:
        return len(self._pool._pool.connections)  # noqa: SLF001  # httpx shows its pool nowhere else

    # -- the port

    def send(self, request: Request, deadline: float, answered: Answered) -> None:
        """See `ports.Transport.send`."""
        _check_headers(request)
        if self._is_closed:
            self._loop.call_soon(answered, Fault.TIMEOUT_UNSENT)
            return
        exchange = _Exchange(self)
        task = self._loop.create_task(self._post(exchange, request, deadline))
        self._exchanges.add(task)
        task.add_done_callback(partial(self._ended, exchange, answered))

    async def close(self) -> None:
        """See `ports.Transport.close`."""
        self._is_closed = True
        outstanding = tuple(self._exchanges)
        for task in outstanding:
            task.cancel()
        if outstanding:
            await asyncio.wait(outstanding)
        await self._client.aclose()

    # -- one exchange

    def _ended(self, exchange: "_Exchange", answered: Answered, task: asyncio.Task[Answer | Fault]) -> None:
        self._exchanges.discard(task)
        if task.cancelled():  # by close, perhaps before its first step
            answered(Fault.RESET if exchange.was_sent else Fault.TIMEOUT_UNSENT)
        else:
            answered(task.result())

    async def _post(self, exchange: "_Exchange", request: Request, deadline: float) -> Answer | Fault:
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic()):
                self.waiting += 1
                try:
                    await self._slots.acquire()
                finally:
                    self.waiting -= 1
                self.busy += 1
                try:
                    return await self._stream(exchange, request)
                finally:
                    self.busy -= 1
                    self._slots.release()
        except TimeoutError:
            return Fault.TIMEOUT if exchange.was_sent else Fault.TIMEOUT_UNSENT
        except httpx.TransportError as error:
            return _fault(error, was_sent=exchange.was_sent)

    async def _stream(self, exchange: "_Exchange", request: Request) -> Answer | Fault:
        extensions = {"trace": exchange.trace}
        async with self._client.stream(
            "POST", self._url, content=request.body, headers=list(request.headers), extensions=extensions
        ) as response:
            head = response.headers.raw
            fields = {name.lower(): value for name, value in head}
            if response.status_code < 200 or len(head) > HEADER_MAX_LINES:
                return Fault.PROTOCOL
            if sum(len(name) + len(value) + 4 for name, value in head) > HEAD_MAX_BYTES:
                return Fault.PROTOCOL
            if b"content-length" in fields and b"transfer-encoding" in fields:
                return Fault.PROTOCOL  # two lengths: where the answer ends is anybody's guess
            exchange.response = response
            body = bytearray()
            pieces = 0
            async for chunk in response.aiter_raw():
                body += chunk
                pieces += 1
                if len(body) > BODY_MAX_BYTES:
                    break
                if pieces > BODY_MAX_PIECES:
                    return Fault.PROTOCOL
            retry_after = fields.get(b"retry-after")
            return Answer(
                response.status_code,
                bytes(body[:BODY_MAX_BYTES]),
                None if retry_after is None else retry_after.decode("latin-1"),
            )


class _Exchange:
    """What httpx tells about one request while it is under way."""

    __slots__ = ("_fresh", "_transport", "response", "was_sent")

    def __init__(self, transport: HttpxTransport) -> None:
        self._transport = transport
        self._fresh: Any = None  # the stream, if this exchange opened it
        self.response: httpx.Response | None = None
        self.was_sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note where the exchange is; httpcore does nothing more before this returns."""
        if event in _SENDING:
            if info["request"].method == b"POST":  # and not a CONNECT to the proxy
                if self._fresh is not None and _has_spoken(self._fresh):
                    raise httpx.ConnectError("closed again or speaking before it was asked: as good as refused")
                self.was_sent = True
        elif event.endswith(_STREAMS):
            self._fresh = info["return_value"]
            if event == _CONNECTED:
                self._transport.connections_opened += 1
        elif event == _READ_TO_ITS_END and self.response is not None:
            _end_if_there_is_more(self.response)


def _has_spoken(stream: Any) -> bool:
    """Say whether the peer of a new connection has sent or closed already."""
    if stream.get_extra_info("ssl_object") is not None:
        return _decrypts_more(stream)  # what waits below TLS are session tickets
    return bool(stream.get_extra_info("is_readable") or _queue_of(stream))


def _end_if_there_is_more(response: httpx.Response) -> None:
    """See that the connection of *response* is not used again if more than the answer has come.

    httpcore asks the kernel before it uses a connection again. What it, h11 and anyio have read already would be
    taken for the next answer, and they show it nowhere: so this looks inside (the contract tests watch).
    """
    stream: Any = response.stream
    connection = stream._stream._httpcore_stream._stream._connection  # noqa: SLF001  # see above
    trailing_bytes, _ = connection._h11_state.trailing_data  # noqa: SLF001  # see above
    network = response.extensions["network_stream"]
    if trailing_bytes or _decrypts_more(network) or _queue_of(network):
        connection._keepalive_expiry = -1.0  # noqa: SLF001  # expired as soon as it is idle


def _decrypts_more(stream: Any) -> bool:
    """Say whether a TLS connection has been given more than was read, or its end."""
    ssl_object = stream.get_extra_info("ssl_object")
    if ssl_object is None:
        return False
    try:
        ssl_object.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass  # nonsense: as bad as more
    return True


def _queue_of(stream: Any) -> Collection[bytes]:
    """Return what came from the socket and was not asked for: the rest, when more came at once than was wanted."""
    below = stream._stream  # noqa: SLF001  # anyio's stream, within httpcore's
    while not hasattr(below, "_protocol"):
        below = below.transport_stream  # TLS, perhaps in TLS
    queue: Collection[bytes] = below._protocol.read_queue  # noqa: SLF001  # shown nowhere else
    return queue


def _check_headers(request: Request) -> None:
    """Refuse what would end a line or change the framing, here and not in a task: it is our bug."""
    for name, value in request.headers:
        if name.lower() in _FRAMING:
            raise ValueError(f"header {name}: belongs to the transport")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name!r}: name or value isn't printable ASCII on one line")


def _fault(error: httpx.TransportError, *, was_sent: bool) -> Fault:
    if was_sent:
        if isinstance(error, httpx.RemoteProtocolError) and not _is_hang_up(error):
            return Fault.PROTOCOL
        return Fault.RESET
    causes = tuple(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return Fault.DNS
    # not its subclasses: want-read and end of file are a slow or a closing peer, not a wrong one
    if any(type(cause) in _TLS_ERRORS for cause in causes):
        return Fault.TLS
    return Fault.CONNECT


def _is_hang_up(error: httpx.RemoteProtocolError) -> bool:
    # httpx has one class for "not HTTP" and "gone too early"; only the text tells them apart (the contract tests watch)
    text = str(error)
    return "disconnected" in text or "closed connection" in text


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
