"""Virtual time, chance, and one baton: all of a simulation happens here, in one order that the seed decides.

Everything is an event in one queue: a turn of an event loop, an answer, a timer, a fault. The product's Kafka threads
are real threads, but only the one with the baton runs, and it gives it away only where it calls something of ours. The
one that waits runs the world's events meanwhile, so no thread of its own does the scheduling.
"""

import itertools
import math
import threading
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from random import Random

START_S = 1_000.0
EPOCH_MS = 1_700_000_000_000
WORLD_ENDS_S = START_S + 100_000.0

Event = Callable[[], "Strand | None"]
"""Returns the strand that goes on now, if it woke one."""


class KilledError(BaseException):
    """The process that runs this code is dead: unwind it. No `Exception`, so that nobody handles it."""


class DeadlockError(Exception):
    """Nothing is left that could ever happen."""


class World:
    """One simulated world. `main`, the strand of whoever made it, drives it by waiting."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.random = Random(seed)
        self.now = START_S
        self.trace: list[str] | None = [] if tracing else None
        self.events = 0
        self.strands: set[Strand] = set()
        self.main = Strand(self, "main")
        self.current = self.main
        self._queue: list[tuple[float, int, Event]] = []
        self._numbers = itertools.count()
        self._crash: BaseException | None = None

    def note(self, who: str, what: str) -> None:
        """Tell the trace, if there is one."""
        if self.trace is not None:
            self.trace.append(f"{self.now - START_S:9.4f} {who:10} {what}")

    def wall_ms(self) -> int:
        return EPOCH_MS + round((self.now - START_S) * 1000)

    # -- events

    def at(self, when: float, event: Event) -> None:
        heappush(self._queue, (when, next(self._numbers), event))

    def after(self, delay_s: float, event: Event) -> None:
        heappush(self._queue, (self.now + delay_s, next(self._numbers), event))

    def soon(self, event: Event) -> None:
        """Let *event* happen after as long as a machine may take for nothing: mostly at once, sometimes a while."""
        chance = self.random.random()
        self.after(chance * 0.0005 if chance < 0.95 else chance * 0.02, event)

    def is_likely(self, share: float) -> bool:
        return self.random.random() < share

    # -- the baton

    def sleep(self, seconds: float) -> None:
        """Let the current strand wait."""
        self.current.wait(self.now + seconds)

    def hand_over(self, strand: "Strand | None") -> None:
        """Run events until one wakes a strand, and give it the baton; return when *strand* has it again."""
        awake = self._next_awake()
        self.current = awake
        if awake is strand:
            return
        awake.baton.release()
        if strand is not None:
            strand.baton.acquire()

    def _next_awake(self) -> "Strand":
        queue = self._queue
        while queue:
            when, _, event = heappop(queue)
            self.now = max(self.now, when)
            self.events += 1
            awake = None
            try:
                awake = event()
            except BaseException as error:  # a bug of ours: the test must see it
                self.crash(error)
            if self._crash is not None:
                return self.main
            if awake is not None:
                return awake
        self._crash = DeadlockError("nothing is left to happen")
        return self.main

    def crash(self, error: BaseException) -> None:
        """End the world because of *error*, which whoever waits in `main` gets, wherever it is raised or caught."""
        if self._crash is None:
            self._crash = error

    def raise_crash(self) -> None:
        crash, self._crash = self._crash, None
        if crash is not None:
            raise crash

    def end(self) -> None:
        """Unwind all threads; call it from `main`."""
        self._crash = None
        for strand in [*self.strands]:
            strand.kill()
        while self.strands:
            self.main.wait(self.now)


class Strand:
    """A thread that runs only while it has the baton. `is_held_up` says until when its process stands still."""

    def __init__(self, world: World, name: str, held_until: Callable[[], float] = lambda: 0.0) -> None:
        self.world = world
        self.name = name
        self.baton = threading.Lock()
        self.baton.acquire()
        self.is_dead = False
        self._held_until = held_until
        self._is_waiting = False
        self._waits = 0

    def start(self, body: Callable[[], None]) -> None:
        """Run *body* on a thread, soon."""
        self.world.strands.add(self)
        self._is_waiting = True
        self.world.soon(partial(self._due, self._waits))
        _idle_thread().run(self, body)

    def wait(self, until: float = math.inf) -> None:
        """Give the baton away; go on when woken, or at *until*."""
        if self.is_dead:
            raise KilledError
        self._waits += 1
        self._is_waiting = True
        if until < math.inf:
            self.world.at(until, partial(self._due, self._waits))
        self.world.hand_over(self)
        if self.is_dead:
            raise KilledError
        if self is self.world.main:
            self.world.raise_crash()

    def wake(self) -> None:
        """Let it go on soon, if it waits."""
        if self._is_waiting:
            self.world.soon(partial(self._due, self._waits))

    def kill(self) -> None:
        """Let it unwind at its next step, which comes now."""
        self.is_dead = True
        if self._is_waiting:
            self.world.at(self.world.now, partial(self._due, self._waits))

    def _due(self, wait: int) -> "Strand | None":
        if not self._is_waiting or wait != self._waits:
            return None
        if not self.is_dead and (held := self._held_until()) > self.world.now:
            self.world.at(held, partial(self._due, wait))
            return None
        self._is_waiting = False
        return self


class _Thread:
    """A thread that is used again: making one takes longer than most simulated lives."""

    def __init__(self) -> None:
        self._work = threading.Semaphore(0)
        self._strand: Strand | None = None
        self._body: Callable[[], None] | None = None
        threading.Thread(target=self._live, name="strand", daemon=True).start()

    def run(self, strand: Strand, body: Callable[[], None]) -> None:
        self._strand, self._body = strand, body
        self._work.release()

    def _live(self) -> None:
        while True:
            self._work.acquire()
            strand, body = self._strand, self._body
            assert strand is not None, "given by run"
            assert body is not None, "given by run"
            strand.baton.acquire()
            world = strand.world
            try:
                if not strand.is_dead:
                    body()
            except KilledError:
                pass
            except BaseException as error:
                world.crash(error)
            world.strands.discard(strand)
            self._strand = self._body = None
            _IDLE.append(self)
            if world._crash is not None:
                world.main._is_waiting = False
                world.current = world.main
                world.main.baton.release()
            else:
                world.hand_over(None)


_IDLE: list[_Thread] = []


def _idle_thread() -> _Thread:
    return _IDLE.pop() if _IDLE else _Thread()
