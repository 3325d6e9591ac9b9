"""A TCP proxy on loopback that misbehaves on request, in a thread of its own: what networks do to connections.

`mode` may be changed at any time, and holds for open connections, too:

- `pass`: bytes go both ways;
- `blackhole`: nothing goes any way, connections stay open, and new ones are taken and get nothing;
- `half_open`: requests go through, answers are thrown away; no stream goes on after a gap, so such a connection is
  reset when the mode ends;
- `answers_only`: the other way round, and it ends in the same way;
- `drip`: a byte at a time, both ways;
- `slow`: each piece waits a while, another while each time;
- `reset`: every connection is reset, and new ones as soon as they are accepted;
- `close`: every connection is closed in order, and new ones as soon as they are accepted;
- `refuse`: nobody listens, and open connections are closed;
- `no_brokers`, `fenced`: see `kafka_proxy`.
"""

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Literal, Self, TypeAlias

Mode: TypeAlias = Literal[
    "pass", "blackhole", "half_open", "answers_only", "drip", "slow", "reset", "close", "refuse", "no_brokers", "fenced"
]
Read: TypeAlias = Callable[[], Awaitable[bytes]]
"""Returns the next piece; none at the end."""

CHUNK_BYTES = 65_536
LOOK_S = 0.05
"""How often a connection that is held back looks whether it may go on."""
DRIP_S = 0.02
SLOW_S = 0.3
LATE_S = 0.25
"""What comes this much later than it should, while nothing is wrong on purpose, is written down."""
GAPS: set[tuple[Mode, bool]] = {("half_open", True), ("answers_only", False)}
"""In which modes what is thrown away: answers or requests."""
ENDS: set[Mode] = {"reset", "close", "refuse"}
RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Stands before *target* (a port on loopback), on `port`."""

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = target
        self._place = socket.socket()  # never listens: it keeps the port ours while it is refused
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", port))
        self.port: int = self._place.getsockname()[1]
        self.mode: Mode = "pass"
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # connections are cut on purpose
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._with_gap: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.late: list[tuple[int, int]] = []
        """When we could not serve, though it was nobody's wish: the machine had too much to do. Epoch milliseconds."""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._watch, self._loop.time())
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._place.close()

    def set_mode(self, mode: Mode) -> None:
        """Misbehave so from now on; when this returns, the port listens or refuses."""
        self.mode = mode
        asyncio.run_coroutine_threadsafe(self._change(), self._loop).result(10)

    async def _change(self) -> None:
        self._reset(self._writers if self.mode == "reset" else self._with_gap)
        if self.mode == "refuse":
            self._close_server()
        elif self._server is None:
            await self._start()
        if self.mode in ENDS:
            for writer in self._writers:
                writer.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)

    def _watch(self, due: float) -> None:
        """Look each `LOOK_S` whether it is already later."""
        late_s = self._loop.time() - due
        if late_s > LATE_S:
            now_ms = time.time_ns() // 1_000_000
            self.late.append((now_ms - round(late_s * 1000), now_ms))
        due = self._loop.time() + LOOK_S
        self._loop.call_at(due, self._watch, due)

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _stop(self) -> None:
        self._close_server()
        self._reset(self._writers)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    @staticmethod
    def _reset(writers: set[asyncio.StreamWriter]) -> None:
        for writer in [*writers]:
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            await self._pass_blackhole()
            if self.mode not in ENDS:
                back, there = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(there)
                asked, answered = self._reads(reader, back)
                await self._join(self._pump(asked, there), self._pump(answered, writer, is_answer=True))
        except OSError:  # nobody listens behind us
            _reset(writer)
        finally:
            for each in (writer, there):
                if each is not None:
                    self._writers.discard(each)
                    self._with_gap.discard(each)
                    if self.mode == "reset":
                        _reset(each)
                    else:
                        each.close()  # sends what is on its way first

    def _reads(self, requests: asyncio.StreamReader, answers: asyncio.StreamReader) -> tuple[Read, Read]:
        """Return how both sides of a connection are read: in pieces as they come."""
        return partial(requests.read, CHUNK_BYTES), partial(answers.read, CHUNK_BYTES)

    @staticmethod
    async def _join(*ways: Coroutine[None, None, None]) -> None:
        """Run both ways until one of them ends."""
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _pass_blackhole(self) -> None:
        while self.mode == "blackhole":  # noqa: ASYNC110 - the mode is set from another thread
            await asyncio.sleep(LOOK_S)

    async def _pump(self, read: Read, writer: asyncio.StreamWriter, *, is_answer: bool = False) -> None:
        with suppress(OSError):
            while data := await read():
                await self._pass_blackhole()
                if writer in self._with_gap or (self.mode, is_answer) in GAPS:
                    self._with_gap.add(writer)
                    continue
                if self.mode == "slow":
                    await asyncio.sleep(random.uniform(0, SLOW_S))
                at = 0
                while self.mode == "drip" and at < len(data):
                    writer.write(data[at : at + 1])
                    at += 1
                    await asyncio.sleep(DRIP_S)
                writer.write(data[at:])
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, not with FIN."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
