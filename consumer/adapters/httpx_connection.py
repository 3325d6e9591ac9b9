"""One connection of httpx: an exchange over it, and what httpx doesn't look at.

Bytes that came before a request or behind an answer would be read as the next event's answer, so this looks for them,
in places that httpcore, h11 and anyio show nowhere (the contract tests watch). Stands alone because it knows their
insides; `httpx_transport` knows none.
"""

import socket
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from consumer.core.outcome import Answer, Fault
from consumer.ports import Clock

HEAD_MAX_BYTES = 64 * 1024
HEADER_MAX_LINES = 128
BODY_MAX_BYTES = 64 * 1024
BODY_MAX_PIECES = 4096
"""Chunks of an answer. h11 takes 50 µs for each, a byte or not, and the event loop waits."""

_SENDING = "http11.send_request_headers.started"
_TLS_ERRORS = (ssl.SSLError, ssl.SSLCertVerificationError)
_CONNECTED = "connection.connect_tcp.complete"
_STREAMS = ("connect_tcp.complete", "start_tls.complete")


class Line:
    """One connection, or none yet: a pool of httpx that holds one at most."""

    __slots__ = ("idle_since", "pool")

    def __init__(self, pool: httpx.AsyncHTTPTransport) -> None:
        self.pool = pool
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        connections = self.pool._pool.connections  # noqa: SLF001  # httpx shows its pool nowhere else
        return any(not connection.is_closed() for connection in connections)

    async def ask(self, request: httpx.Request) -> Answer | Fault:
        """Send *request* and read its answer; nothing that comes behind it stays.

        Raises:
            httpx.TransportError: see `fault_of`.
        """
        response = await self.pool.handle_async_request(request)
        try:
            answer = await _read(response)
        except BaseException:
            await response.aclose()
            raise
        try:
            await response.aclose()
            is_clean = not (self.is_open and _holds_more(response))
        except OSError:  # without descriptors: it was answered, whatever becomes of the connection
            is_clean = False
        if not is_clean:
            with suppress(OSError):
                await self.close()
        return answer

    async def close(self) -> None:
        """Close the connection, whatever state it is in; the next request opens another."""
        await self.pool.aclose()


class Exchange:
    """What httpcore tells about one request while it is under way; it does nothing more before `trace` returns."""

    __slots__ = ("_clock", "_connected", "_fresh", "send_by", "was_sent")

    def __init__(self, connected: Callable[[], None], clock: Clock, send_by: float) -> None:
        self._connected = connected
        self._clock = clock
        self.send_by = send_by
        """Monotonic seconds: see `ports.last_moment`."""
        self._fresh: Any = None  # the stream, if this exchange opened it
        self.was_sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event == _SENDING:
            if info["request"].method == b"POST":  # and not a CONNECT to the proxy
                if self._fresh is not None and _has_spoken(self._fresh):
                    raise httpx.ConnectError("closed again or speaking before it was asked: as good as refused")
                if self._clock.monotonic() > self.send_by:
                    raise TimeoutError
                self.was_sent = True
        elif event.endswith(_STREAMS):
            self._fresh = info["return_value"]
            if event == _CONNECTED:
                self._connected()


async def _read(response: httpx.Response) -> Answer | Fault:
    """Read *response* within the caps; what goes beyond them is left on the connection, which then closes."""
    head = response.headers.raw
    if response.status_code < 200 or len(head) > HEADER_MAX_LINES:
        return Fault.PROTOCOL
    if sum(len(name) + len(value) + 4 for name, value in head) > HEAD_MAX_BYTES:
        return Fault.PROTOCOL
    fields = {name.lower(): value for name, value in head}
    if b"content-length" in fields and b"transfer-encoding" in fields:
        return Fault.PROTOCOL  # two lengths: where the answer ends is anybody's guess
    body = bytearray()
    pieces = 0
    assert isinstance(response.stream, httpx.AsyncByteStream), "it came from an asynchronous pool"
    async for piece in response.stream:  # not `aiter_raw`: that closes at the end, and what fails then hides the answer
        body += piece
        pieces += 1
        if len(body) > BODY_MAX_BYTES:
            break
        if pieces > BODY_MAX_PIECES:
            return Fault.PROTOCOL
    retry_after = fields.get(b"retry-after")
    return Answer(
        response.status_code, bytes(body[:BODY_MAX_BYTES]), None if retry_after is None else str(retry_after, "latin-1")
    )


def _has_spoken(stream: Any) -> bool:
    """Say whether the peer of a new connection has sent or closed already."""
    if stream.get_extra_info("ssl_object") is not None:
        return _decrypts_more(stream)  # what waits below TLS are session tickets
    return bool(stream.get_extra_info("is_readable") or _queue_of(stream))


def _holds_more(response: httpx.Response) -> bool:
    """Say whether more than *response* has been read from its connection, which was kept.

    httpcore asks the kernel before it uses a connection again. But what h11, TLS and anyio have taken from there would
    become the next answer, and they show it nowhere: so this looks inside (the contract tests watch).
    """
    stream: Any = response.stream
    connection = stream._httpcore_stream._stream._connection  # noqa: SLF001  # see above
    trailing_bytes, _ = connection._h11_state.trailing_data  # noqa: SLF001  # see above
    network = response.extensions["network_stream"]
    return bool(trailing_bytes or _decrypts_more(network) or _queue_of(network))


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


def fault_of(error: httpx.TransportError, *, was_sent: bool) -> Fault:
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
