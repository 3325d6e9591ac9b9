"""An asyncio event loop in virtual time, one for each member. Its turns are events of the world."""

import asyncio
import contextvars
import inspect
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from tests.simulation.world import KilledError, World


class VirtualLoop(asyncio.AbstractEventLoop):
    """What the product asks of a loop, first come first served as asyncio does it; nothing of it knows real time.

    Args:
        held_until: until when the process, or this thread of it, stands still.
        after_turn: called after each turn, to look at invariants.
    """

    def __init__(self, world: World, held_until: Callable[[], float], after_turn: Callable[[], None]) -> None:
        self._world = world
        self._held_until = held_until
        self._after_turn = after_turn
        self._ready: deque[asyncio.Handle] = deque()
        self._turn_is_due = False
        self._tasks: dict[asyncio.Task[Any], Coroutine[Any, Any, Any]] = {}
        self._on_exception: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None] | None = None
        self.signal_handlers: dict[int, Callable[[], None]] = {}
        self.is_dead = False

    # -- what asyncio and the product call

    def time(self) -> float:
        return self._world.now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._add(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._world.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._world.at(when, partial(self._add, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        if self.is_dead:
            coro.close()
        task = asyncio.Task(coro, loop=self, **options)
        self._tasks[task] = coro
        task.add_done_callback(self._tasks.pop)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.is_dead

    def set_exception_handler(self, handler: Any) -> None:
        self._on_exception = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead and self._on_exception is not None:
            self._on_exception(self, context)

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self.signal_handlers[sig] = partial(callback, *args)

    # -- turns

    def _add(self, handle: asyncio.Handle) -> None:
        if self.is_dead or handle.cancelled():
            return
        self._ready.append(handle)
        if not self._turn_is_due:
            self._turn_is_due = True
            self._world.soon(self._turn)

    def _turn(self) -> None:
        """Run what is ready now, or (so that other threads come in between) only some of it."""
        if self.is_dead:
            return
        world = self._world
        if (held := self._held_until()) > world.now:
            world.at(held, self._turn)
            return
        ready = self._ready
        count = len(ready)
        self._run(count if count == 1 or world.is_likely(0.8) else world.random.randint(1, count))
        if self.is_dead:
            return
        self._turn_is_due = bool(ready)
        if ready:
            world.soon(self._turn)
        self._after_turn()

    def _run(self, count: int) -> None:
        events._set_running_loop(self)
        try:
            for _ in range(count):
                if self.is_dead:
                    return
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            events._set_running_loop(None)

    def die(self) -> None:
        """Stop for ever, as by SIGKILL."""
        self.is_dead = True
        self._ready.clear()
        self._world.at(self._world.now, self._unwind)  # not at once: who dies may be running just now

    def _unwind(self) -> None:
        """End the coroutines without a sound; what they do on their way has no effect, since all they touch is dead."""
        events._set_running_loop(self)
        try:
            for task, coroutine in [*self._tasks.items()]:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _unwind(coroutine)
        finally:
            events._set_running_loop(None)
        self._tasks.clear()


def _unwind(coroutine: Coroutine[Any, Any, Any]) -> None:
    while inspect.getcoroutinestate(coroutine) != inspect.CORO_CLOSED:
        with suppress(KilledError, StopIteration, asyncio.CancelledError):
            coroutine.throw(KilledError())
