"""One connection to the stand-in: requests in, one answer to each, in order, as the reply says.

Latency is a timer, not a task. While an answer is due later requests wait in a queue; when that grows, or the client
doesn't read, reading pauses, so a client can't fill our memory.
"""

import asyncio
import socket
import struct
from collections import deque
from typing import Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from consumer.sandbox.wire import Reply, Request, render

BODY_MAX_BYTES = 2 * 1024 * 1024
"""A body is smaller than this."""
HEAD_MAX_BYTES = 64 * 1024
QUEUE_MAX_REQUESTS = 64
"""Pipelined requests that wait before reading pauses."""
LINGER_S = 1.0
"""How long a client may take to read why it is turned away, before its connection is closed."""

_RESET = struct.pack("ii", 1, 0)
_AFTER_ANSWERS = -1
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Owner(Protocol):
    """Who answers."""

    def serve(self, request: Request, connection: "Connection") -> Reply:
        """Return what to do with *request*; it is counted by then."""

    def opened(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...

    def turned_away(self, status: int) -> None:
        """Note a request that isn't HTTP, or too large."""


class Connection(asyncio.Protocol):
    """A client's connection."""

    __slots__ = (
        "_broken", "_can_write", "_headers", "_in_headers", "_is_busy", "_is_deaf", "_is_over", "_loop",
        "_owes_continue", "_owner", "_parser", "_parts", "_queue", "_size_bytes", "_target", "_timer", "_transport",
        "_unparsed_bytes", "has_sent_events",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._queue: deque[Request] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_busy = False
        """An answer is under way."""
        self._is_deaf = False
        """What the client says from now on is thrown away."""
        self._is_over = False
        """No further answer comes, and the connection is closing or hangs."""
        self._can_write = True
        self._broken = 0
        """The status that ends this connection once everything before has been answered, or `_AFTER_ANSWERS`."""
        self._unparsed_bytes = 0
        """Read since the last complete request; what shared a read with its end isn't counted."""
        self.has_sent_events = False
        """The owner's to set."""
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._in_headers = True
        self._owes_continue = False

    # -- the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self._is_deaf or parser is None:
            return
        self._unparsed_bytes += len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self._broken = self._broken or _AFTER_ANSWERS  # CONNECT: what follows is another protocol
        except HttpParserCallbackError:
            raise
        except HttpParserError:
            # Behind the end of what the client promised to be its last request nothing needs to make sense.
            self._broken = self._broken or (0 if self._is_deaf else 400)
        limit = HEAD_MAX_BYTES if self._in_headers else HEAD_MAX_BYTES + 2 * BODY_MAX_BYTES  # chunk framing is bulky
        if self._unparsed_bytes > limit and not self._is_deaf:
            self._broken = self._broken or (431 if self._in_headers else 413)
        if self._broken:
            self._is_deaf = True
            if not self._is_busy:
                self._turn_away()
        elif len(self._queue) > QUEUE_MAX_REQUESTS:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        # A client may close its half and still wait for answers, over TLS it may not.
        if self._is_busy and not self._is_over and self._transport.get_extra_info("sslcontext") is None:
            self._is_deaf = True
            self._broken = self._broken or _AFTER_ANSWERS
            return True
        return False

    def pause_writing(self) -> None:
        self._can_write = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._can_write = True
        if not self._is_busy:
            self._next()
        self._resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()
        self._is_busy = self._is_deaf = self._is_over = True
        self._parser = None  # it points back at us: no garbage that only the collector finds
        self._owner.closed(self)

    # -- the parser calls

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if int(self._headers.get(b"content-length", 0)) >= BODY_MAX_BYTES:
            self._broken = self._broken or 413
        elif b"upgrade" in self._headers:
            self._broken = self._broken or 501  # the parser would skip the body
        elif b"expect" in self._headers and self._headers[b"expect"].lower() == b"100-continue":
            self._owes_continue = True
            if not self._is_busy and not self._queue:
                self._say_continue()

    def on_body(self, part: bytes) -> None:
        self._size_bytes += len(part)
        if self._size_bytes >= BODY_MAX_BYTES:
            self._broken = self._broken or 413
            self._parts.clear()
        else:
            self._parts.append(part)

    def on_message_complete(self) -> None:
        parser = self._parser
        if self._broken or self._is_deaf or parser is None:
            return
        headers, parts = self._headers, self._parts
        keep_alive = parser.should_keep_alive()
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        request = Request(parser.get_method(), self._target, headers, body, keep_alive)
        self._begin()
        self._unparsed_bytes = 0
        if not keep_alive:
            self._is_deaf = True
        if self._is_busy or self._queue or not self._can_write:
            self._queue.append(request)
        else:
            self._serve(request)

    # -- answers

    def _serve(self, request: Request) -> None:
        reply = self._owner.serve(request, self)
        if reply.delay_s:
            self._is_busy = True
            self._timer = self._loop.call_later(reply.delay_s, self._act_and_go_on, reply)
        else:
            self._act(reply)

    def _act_and_go_on(self, reply: Reply) -> None:
        self._is_busy = False
        self._act(reply)
        if not self._is_busy:
            self._next()

    def _act(self, reply: Reply) -> None:
        data, _, drip_s, then, chunks = reply
        if then == "reset":
            self._reset()
        elif then == "hang":
            self._is_busy = self._is_deaf = self._is_over = True
            self._queue.clear()
            self._resume_reading()  # to see the client go
        elif chunks is not None:
            self._is_busy = True
            self._transport.write(data)
            self._pump(reply)
        elif drip_s:
            self._is_busy = True
            self._drip(reply, 0)
        else:
            self._transport.write(data)
            if then == "close":
                self._end()

    def _drip(self, reply: Reply, sent_bytes: int) -> None:
        self._transport.write(reply.data[sent_bytes : sent_bytes + 1])
        if sent_bytes + 1 < len(reply.data):
            self._timer = self._loop.call_later(reply.drip_s, self._drip, reply, sent_bytes + 1)
        else:
            self._finish(reply)

    def _pump(self, reply: Reply) -> None:
        assert reply.chunks is not None
        if self._transport.is_closing():
            return
        if not self._can_write:
            self._timer = self._loop.call_later(0.01, self._pump, reply)
        elif (chunk := next(reply.chunks, None)) is not None:
            self._transport.write(chunk)
            self._timer = self._loop.call_later(0, self._pump, reply)  # events come between the chunks
        else:
            self._finish(reply)

    def _finish(self, reply: Reply) -> None:
        self._is_busy = False
        if reply.then == "close":
            self._end()
        else:
            self._next()

    def _next(self) -> None:
        while self._queue and not self._is_busy and self._can_write:
            self._serve(self._queue.popleft())
        if self._is_busy or self._queue:
            return
        self._timer = None
        if self._broken:
            self._turn_away()
        else:
            if self._owes_continue and not self._is_deaf:
                self._say_continue()
            self._resume_reading()

    def _say_continue(self) -> None:
        self._owes_continue = False
        if not self._size_bytes:
            self._transport.write(_CONTINUE)

    def _turn_away(self) -> None:
        if self._broken == _AFTER_ANSWERS:
            self._end()
            return
        self._owner.turned_away(self._broken)
        self._is_busy = self._is_deaf = self._is_over = True
        self._transport.write(render(self._broken, b"", announce_close=True))
        # Closing at once while the client still sends would reset the connection, and the answer would be lost.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._resume_reading()
        self._timer = self._loop.call_later(LINGER_S, self._transport.close)

    def _end(self) -> None:
        self._is_busy = self._is_deaf = self._is_over = True
        self._queue.clear()
        self._transport.close()

    def _reset(self) -> None:
        """Close so that the client sees a reset and not an orderly end."""
        self._is_busy = self._is_deaf = self._is_over = True
        self._queue.clear()
        if (plain := self._transport.get_extra_info("socket")) is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _resume_reading(self) -> None:
        if self._can_write and not self._transport.is_closing():
            self._transport.resume_reading()

    def drop(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()
