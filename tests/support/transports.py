"""Both transports, on both event loops, for the tests that know no difference between them."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import uvloop

from consumer.adapters.clock import SystemClock
from consumer.adapters.fast_transport import FastTransport
from consumer.adapters.httpx_transport import HttpxTransport
from consumer.core.outcome import Answer, Fault
from consumer.ports import Request, Transport

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
KINDS = ("fast", "httpx")


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """Run *main* on that kind of loop; whatever the loop's exception handler is told fails the test."""
    troubles: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        async with asyncio.timeout(60):
            await main

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(watched())
    assert not troubles, troubles


def make(kind: str, url: str, *, ssl_context: ssl.SSLContext | None = None, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "connections": 4,
        "connect_timeout_s": 5.0,
        "idle_timeout_s": 30.0,
        "user_agent": "kochava-consumer/test",
        "clock": SystemClock(),
        "loop": asyncio.get_running_loop(),
        "ssl_context": ssl_context,
    }
    if kind == "fast":
        options["max_connection_age_s"] = 300.0
        return FastTransport(url, **options | changes)
    return HttpxTransport(url, **options | changes)


def with_a_short_deadline(attempt: "Callable[[float], Answer | Fault]") -> "Answer | Fault":
    """Return what *attempt* gives by a deadline (seconds) that passes after the request was sent.

    A machine too slow to send it by then gets more time, so the first deadline can be short.
    """
    for timeout_s in (0.3, 1.5):
        if (got := attempt(timeout_s)) is not Fault.TIMEOUT_UNSENT:
            return got
    return attempt(8.0)


def wait_after_connecting(kind: str, until: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return options for `make` with which a connection is used only when *until* is set.

    So a test decides what a server did between the connection and the first request.
    """
    if kind == "fast":
        return {"loop": _LateLoop(asyncio.get_running_loop(), until)}
    connect = anyio.connect_tcp

    async def connect_late(*arguments: Any, **options: Any) -> Any:
        stream = await connect(*arguments, **options)
        await until.wait()
        return stream

    monkeypatch.setattr(anyio, "connect_tcp", connect_late)
    return {}


class _LateLoop:
    """An event loop whose connections are told of late."""

    def __init__(self, loop: asyncio.AbstractEventLoop, until: asyncio.Event) -> None:
        self._loop = loop
        self._until = until

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, *arguments: Any, **options: Any) -> Any:
        made = await self._loop.create_connection(*arguments, **options)
        await self._until.wait()
        return made


def begin(
    transport: Transport, body: bytes = b"{}", *headers: tuple[str, str], timeout_s: float = 20.0
) -> "asyncio.Future[Answer | Fault]":
    """Send; a callback that comes within `send` or twice fails the test."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer | Fault] = loop.create_future()
    has_returned = False

    def answered(answer: Answer | Fault) -> None:
        assert has_returned, "called from within send"
        future.set_result(answer)  # raises the second time

    transport.send(Request(body, headers), SystemClock.monotonic() + timeout_s, answered)
    has_returned = True
    return future
