"""Small stand-ins for what the product takes from its machine: time, waiting, the watchdog, schemas, the log."""

import asyncio
import concurrent.futures
import inspect
from collections.abc import Coroutine
from typing import Any

import structlog

from consumer.core.record import Record
from consumer.errors import ExitCode
from consumer.ports import Request, SchemaNeeded
from consumer.settlement import Positions
from consumer.translate import Filtered, Prepared, Refused, Step
from tests.simulation.loop import VirtualLoop
from tests.simulation.member import Member
from tests.simulation.world import KilledError, Strand, World


class DrainFuture:
    """What `run_coroutine_threadsafe` returns, with a `result` that waits in virtual time."""

    def __init__(
        self, world: World, coroutine: Coroutine[Any, Any, Positions], loop: VirtualLoop, blocked: list[list[float]]
    ) -> None:
        self._world = world
        self._blocked = blocked
        self._strand: Strand | None = None
        self._coroutine = coroutine
        self._future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        self._future.add_done_callback(lambda _: self._strand and self._strand.wake())

    def result(self, timeout: float) -> Positions:
        world = self._world
        deadline = world.now + timeout
        span = [world.now, float("inf")]
        self._blocked.append(span)  # meanwhile its thread stores nothing
        self._strand = world.current
        while not self._future.done():
            if world.now >= deadline:
                span[1] = world.now
                raise concurrent.futures.TimeoutError
            try:
                world.current.wait(deadline)
            except KilledError:
                self.close()
                raise
        span[1] = world.now
        return self._future.result(0)

    def cancel(self) -> bool:
        return self._future.cancel()

    def close(self) -> None:
        """Let go of a drain that never began: its event loop was blocked, or died."""
        if inspect.getcoroutinestate(self._coroutine) == inspect.CORO_CREATED:
            self._coroutine.close()


class RoomEvent:
    """`threading.Event` in virtual time, for one that waits."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False
        self._waiter: Strand | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None:
            self._waiter.wake()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float) -> bool:
        if not self._is_set:
            self._waiter = self._world.current
            self._world.current.wait(self._world.now + timeout)
        return self._is_set


class Clock:
    def __init__(self, member: Member) -> None:
        self._member = member

    def monotonic(self) -> float:
        return self._member.world.now

    def wall_ms(self) -> int:
        return self._member.world.wall_ms() + self._member.clock_shift_ms


class Watchdog:
    """Ends the simulated process instead of the real one."""

    def __init__(self, member: Member, after_s: float) -> None:
        self._member = member
        self._after_s = after_s
        self.is_started = False
        self._is_cancelled = False

    def start(self, code: ExitCode = ExitCode.FORCED) -> None:
        if not self.is_started:
            self.is_started = True
            self._member.world.after(self._after_s, lambda: self.bite("deadline", code))

    def cancel(self) -> None:
        self._is_cancelled = True

    def bite(self, reason: str, _code: ExitCode = ExitCode.FORCED) -> None:
        if not self._is_cancelled:
            self._member.end(f"forced: {reason}")


class NoAdmin:
    def __init__(self, *_: object) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Decoder:
    """Knows no schema until it was fetched, which takes a while."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.known: set[object] = set()

    async def fetch(self, reference: object) -> None:
        await asyncio.sleep(self._world.random.choice([0.01, 0.5, 6.0]))
        self.known.add(reference)

    async def close(self) -> None: ...


class Translator:
    """The value is the command: what is to become of it, its app and its id."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def translate(self, record: Record) -> Step:
        if record.value is None:
            return Filtered("tombstone")
        what, app_name, event_id = record.value.decode().split()
        if what == "drop":
            return Filtered("condition")
        if what == "bad":
            return Refused("decode", "truncated")
        if what.startswith("schema") and what not in self._decoder.known:
            return SchemaNeeded(what)
        body = f"{app_name} {event_id} {record.topic} {record.partition} {record.offset}"
        return Prepared(app_name, "Purchase", None, Request(body.encode()), ())


def configure_log(world: World) -> None:
    """Let the product's log lines appear in the trace, if there is one; else nowhere, and cheaply."""

    def into_trace(_logger: object, _method: str, line: Any) -> str:
        event = line.pop("event")
        world.note("log", f"{event} " + " ".join(f"{name}={value}" for name, value in line.items()))
        raise structlog.DropEvent

    structlog.configure(
        processors=[into_trace],
        wrapper_class=structlog.make_filtering_bound_logger(10 if world.trace is not None else 50),
        cache_logger_on_first_use=False,
    )
