"""The way between a client and the broker: in order, and sometimes there is none."""

from collections import deque
from collections.abc import Callable
from functools import partial

from tests.simulation.broker import Broker
from tests.simulation.world import World


class _Pipe:
    """One direction of a connection: what is sent arrives in order, or waits while nothing passes."""

    def __init__(self, world: World, passes: Callable[[], bool]) -> None:
        self._world = world
        self._passes = passes
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._last = 0.0
        self._looks_again = False

    def send(self, what: Callable[[], None]) -> None:
        world = self._world
        self._last = max(world.now + world.random.uniform(0.0002, 0.004), self._last)
        self._waiting.append((self._last, what))
        world.at(self._last, self._flush)

    def lose(self) -> None:
        """The sender is dead: the last of what it wrote never left."""
        while self._waiting and self._world.is_likely(0.5):
            self._waiting.pop()

    def _flush(self) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._world.now:
            if not self._passes():
                if not self._looks_again:
                    self._looks_again = True
                    self._world.after(0.1, self._look_again)
                return
            waiting.popleft()[1]()

    def _look_again(self) -> None:
        self._looks_again = False
        self._flush()


class Connection:
    """A client's way to the broker and back. It can be cut, and its client can die or stand still."""

    def __init__(self, broker: Broker, held_until: Callable[[], float]) -> None:
        self._broker = broker
        self._held_until = held_until
        self.cut_until = 0.0
        self.is_dead = False
        self._out = _Pipe(broker.world, lambda: self.is_open)
        self._back = _Pipe(broker.world, lambda: self.is_open and not self.is_held)

    @property
    def is_open(self) -> bool:
        return not self._broker.is_away and self._broker.world.now >= self.cut_until

    @property
    def is_held(self) -> bool:
        return self._held_until() > self._broker.world.now

    def send(self, request: Callable[[], None]) -> None:
        """Let *request* happen at the broker."""
        if not self.is_dead:
            self._out.send(request)

    def answer(self, receive: Callable[[], None]) -> None:
        """Let *receive* happen at the client."""
        self._back.send(partial(self._receive, receive))

    def _receive(self, receive: Callable[[], None]) -> None:
        if not self.is_dead:
            receive()

    def die(self) -> None:
        self.is_dead = True
        self._out.lose()
