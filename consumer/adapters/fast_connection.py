"""One kept connection: a request out, its answer in, and never an answer that belongs to somebody else.

The rules here are about bytes: what is an answer (RFC 9112), what is too much of one, and when the connection can be
trusted with the next request. Which connection takes which request is the business of `fast_transport`.

The attributes of the answer being read live on the connection and are set anew by `ask`: an object for each answer
would be a cycle with the parser, and garbage 20,000 times a second.
"""

import asyncio
import re
import socket
from math import inf
from typing import Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from consumer.core.outcome import Answer, Fault
from consumer.ports import Answered

HEAD_MAX_BYTES = 64 * 1024
"""From the first byte of an answer, interim answers included, to the blank line behind its headers."""
HEADER_MAX_LINES = 128
BODY_MAX_BYTES = 64 * 1024
ANSWER_MAX_BYTES = 512 * 1024
"""Everything that is read for one answer: chunk framing, extensions and trailers count here and nowhere else."""

_TLS_REQUEST_MAX_BYTES = 64 * 1024
"""A connection is kept after a larger request only without TLS, which hides how much of it is still to be sent."""
_KEEP_ALIVE_MARGIN_S = 1.0
_KEEP_ALIVE = re.compile(rb"(?:^|[,\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class Owner(Protocol):
    """Who decides what a connection does next."""

    def freed(self, connection: "Connection") -> None:
        """Take *connection* back; it is clean and may be asked again at once."""

    def dropped(self, connection: "Connection") -> None:
        """Forget *connection*: it must not be asked again. Once for each connection that was ever opened."""

    def gone(self, connection: "Connection") -> None:
        """Note that the socket of *connection* is closed."""

    def watch(self, connection: "Connection") -> None:
        """Begin to look at the socket of *connection*, until it is dropped."""

    def has_news(self, connection: "Connection") -> bool:
        """Say whether something has arrived on *connection* that the event loop has not read yet."""


class Connection(asyncio.Protocol):
    """A connection and the answer that it is reading, if any."""

    __slots__ = (
        "_answered",
        "_body_bytes",
        "_chunks",
        "_in_body",
        "_is_delimited",
        "_is_tls",
        "_keep",
        "_lines",
        "_may_keep",
        "_owner",
        "_parser",
        "_read_bytes",
        "_retry_after",
        "_status",
        "_transport",
        "_verdict",
        "_was_asked",
        "deadline",
        "expires_at",
        "is_open",
        "keep_alive_s",
        "number",
        "retires_at",
    )

    def __init__(self, owner: Owner, *, is_tls: bool) -> None:
        self._owner = owner
        self._is_tls = is_tls
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answered: Answered | None = None
        self._was_asked = False
        self.is_open = False
        self.deadline = inf
        self.retires_at = inf
        """No request after this moment: the maximum age."""
        self.expires_at = inf
        """When a connection that isn't busy closes; the owner's to set."""
        self.keep_alive_s = inf
        """How long the server promised to keep it, less a margin."""
        self._verdict: Answer | Fault | None = None
        self.number = -1
        """Of its socket."""

    # -- what the owner calls

    @property
    def is_busy(self) -> bool:
        return self._answered is not None

    def is_clean(self) -> bool:
        """Say whether nothing has arrived since the last answer: no stray bytes, no end of the connection.

        The event loop may not have seen them yet, so this asks the kernel. A fresh TLS connection is believed: what
        waits there are session tickets.
        """
        return self.is_open and ((self._is_tls and not self._was_asked) or not self._owner.has_news(self))

    def ask(self, request: bytes, deadline: float, answered: Answered) -> None:
        """Send *request*; *answered* gets the answer, later. Only for a clean connection that isn't busy."""
        assert self._transport is not None, "only an open connection is asked"
        self.deadline = deadline
        self._answered = answered
        self._was_asked = True
        self._keep = False
        self._may_keep = not self._is_tls or len(request) <= _TLS_REQUEST_MAX_BYTES
        self._status = 0
        self._in_body = False
        self._is_delimited = False
        self._retry_after: str | None = None
        self._chunks: list[bytes] = []
        self._read_bytes = self._body_bytes = self._lines = 0
        self._verdict = None
        self._transport.write(request)

    def give_up(self, fault: Fault) -> None:
        """End a busy connection: its request gets *fault*."""
        self._keep = False
        self._verdict = fault
        self._finish()

    def drop(self, *, politely: bool) -> None:
        """Close it. *politely* says goodbye (TLS); otherwise what is unread or unsent is thrown away."""
        if not self.is_open:
            return
        self.is_open = False
        assert self._transport is not None, "open means connected"
        if politely:
            self._transport.close()
        else:
            self._transport.abort()
        self._owner.dropped(self)

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self.is_open = True
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = sock.fileno()
        self._owner.watch(self)

    def data_received(self, data: bytes) -> None:
        if self._answered is None:
            self.drop(politely=False)  # nobody asked: it must not become the answer to the next request
            return
        end = self._read_bytes + len(data)
        if end <= HEAD_MAX_BYTES:
            self._read_bytes = end
            self._feed(data)
        else:
            self._feed_long(data)

    def eof_received(self) -> None:
        if self._answered is None:
            self.drop(politely=True)
            return
        if self._in_body and not self._is_delimited:
            self._complete()
        self._keep = False
        self._verdict = self._verdict or Fault.RESET
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why it was lost changes nothing
        if self._answered is not None:
            self.give_up(Fault.RESET)
        self.drop(politely=False)
        self._owner.gone(self)

    # -- reading an answer; the first verdict stands

    def _feed_long(self, data: bytes) -> None:
        """Feed *data* so that the caps cut at the same byte however the network split the answer."""
        for cap in (HEAD_MAX_BYTES, ANSWER_MAX_BYTES):
            room = cap - self._read_bytes
            if room > 0:
                part, data = data[:room], data[room:]
                self._read_bytes += len(part)
                if self._feed(part, has_more=bool(data)) or not data:
                    return
            if not self._in_body:
                self.give_up(Fault.PROTOCOL)
                return
        self._complete()
        self._keep = False
        self._finish()

    def _feed(self, data: bytes, *, has_more: bool = False) -> bool:
        """Parse *data*, and say whether that ended the answer. With *has_more*, what follows was never asked for."""
        try:
            self._parser.feed_data(data)
        except HttpParserCallbackError as error:
            raise error.__context__ or error from None  # our bug, not the server's
        except (HttpParserError, HttpParserUpgrade):
            self._keep = False
            if self._verdict is None:
                self._verdict = Fault.PROTOCOL
        if self._verdict is None:
            return False
        if has_more:
            self._keep = False
        self._finish()
        return True

    def _complete(self) -> None:
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._verdict = Answer(self._status, body[:BODY_MAX_BYTES], self._retry_after)

    def _finish(self) -> None:
        """Hand the verdict over. The connection goes first, so that the next request doesn't wait for the callback."""
        answered, verdict = self._answered, self._verdict
        assert answered is not None, "finished once"
        assert verdict is not None, "decided"
        assert self._transport is not None, "connected"
        self._answered = None
        self.deadline = inf
        # an answer to half a request: the rest of it must not be read as the next one
        if self._keep and not self._transport.get_write_buffer_size():
            self._owner.freed(self)
        else:
            self.drop(politely=False)
        answered(verdict)

    # -- what the parser calls

    def on_message_begin(self) -> None:
        if self._verdict is not None:
            self._keep = False  # a second answer behind the first

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines += 1
        if self._lines > HEADER_MAX_LINES:
            self._verdict = self._verdict or Fault.PROTOCOL
        if self._in_body:
            return  # a trailer
        length = len(name)
        if length == 14:
            if name.lower() == b"content-length":
                self._is_delimited = True
        elif length == 11:
            if name.lower() == b"retry-after":
                self._retry_after = value.strip().decode("latin-1")
        elif length == 10:
            if name.lower() == b"keep-alive":
                promised = _KEEP_ALIVE.search(value)
                self.keep_alive_s = int(promised[1]) - _KEEP_ALIVE_MARGIN_S if promised else inf
        elif length == 17 and name.lower() == b"transfer-encoding":
            if self._is_delimited or value.lower().strip() != b"chunked":  # a coding that we didn't ask for
                self._verdict = self._verdict or Fault.PROTOCOL
            self._is_delimited = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._status = status
            self._in_body = True
        elif status < 100 or status == 101:
            self._verdict = self._verdict or Fault.PROTOCOL
        else:  # an interim answer; the real one follows
            self._is_delimited = False
            self._retry_after = None

    def on_body(self, chunk: bytes) -> None:
        if self._verdict is not None:
            return
        if not self._in_body:  # of an interim answer, which has none: it must not become that of the real one
            self._verdict = Fault.PROTOCOL
            return
        self._chunks.append(chunk)
        self._body_bytes += len(chunk)
        if self._body_bytes > BODY_MAX_BYTES:
            self._complete()

    def on_message_complete(self) -> None:
        if self._verdict is None and self._in_body:
            self._complete()
            self._keep = self._may_keep and self._parser.should_keep_alive()
