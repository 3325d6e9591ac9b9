"""A stand-in Kochava that keeps an honest ledger, and the way to it: answers of every class, lost, late or never.

Each POST says for which place of which log it was made, so that the oracle needn't guess.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from consumer.core.outcome import Answer, Delivered, Fault, classify
from consumer.ports import Answered, Request
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

OK = Answer(200, b'{"success":"1"}')


@dataclass(frozen=True)
class Behaviour:
    """What becomes of a request.

    Attributes:
        accepts: the share that Kochava accepts whatever the answer says; all of them where the answer is a success.
        answer: what comes back; None is nothing before the deadline.
        late: what is accepted may be accepted only after the deadline.
    """

    answer: Answer | Fault | None = OK
    accepts: float = 0.0
    late: bool = False


BEHAVIOURS = {
    "ok": Behaviour(),
    "lost answer": Behaviour(Fault.RESET, accepts=1.0),
    "gateway": Behaviour(Answer(502, b"<html>"), accepts=0.5),
    "reset": Behaviour(Fault.RESET, accepts=0.5),
    "hangs": Behaviour(None, accepts=0.5, late=True),
    "refused": Behaviour(Fault.CONNECT),
    "503": Behaviour(Answer(503, b"")),
    "429": Behaviour(Answer(429, b"", "1")),
    "429 long": Behaviour(Answer(429, b"", "30")),
    "400": Behaviour(Answer(400, b"")),
    "404": Behaviour(Answer(404, b"")),
    "401": Behaviour(Answer(401, b"")),
    "tls": Behaviour(Fault.TLS),
    "dns": Behaviour(Fault.DNS),
    "odd 2xx": Behaviour(Answer(202, b"queued"), accepts=0.5),
    "200 with an error": Behaviour(Answer(200, b'{"success":"0","error":"no"}')),
    "100": Behaviour(Answer(100, b"")),
}
APPS = ("game", "shop")


@dataclass(eq=False)
class Post:
    """One request, and what became of it."""

    member: str
    event_id: str
    place: tuple[str, int, int]
    """Of the record that it was made for: topic, partition, offset."""
    is_on_the_wire: bool = True
    is_clean: bool = False
    """It heard that the event was accepted."""


class Sink:
    """Kochava. `mix` says how often each behaviour occurs, `refused_apps` whose credentials are wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.mix: dict[str, float] = {"ok": 1.0}
        self.latency_s = (0.005, 0.08)
        self.refused_apps: set[str] = set()
        self.on_post: list[Callable[[Post], None]] = []
        self.on_accepted: list[Callable[[Post], None]] = []
        self.on_answer: list[Callable[[Post], None]] = []

    def choose(self, app: str) -> str:
        """Return the name of the behaviour that the next request of *app* meets."""
        if app in self.refused_apps:
            return "401"
        if len(self.mix) == 1:
            return next(iter(self.mix))
        return self._world.random.choices([*self.mix], [*self.mix.values()])[0]

    def accept(self, post: Post) -> None:
        for watch in self.on_accepted:
            watch(post)


class FakeTransport:
    """One member's way to Kochava (`ports.Transport`)."""

    def __init__(self, world: World, sink: Sink, member: str, loop: object) -> None:
        self._world = world
        self._sink = sink
        self._member = member
        self._loop = loop
        self._open: dict[Post, Answered] = {}
        self.is_dead = False

    def send(self, request: Request, deadline: float, answered: Answered) -> None:
        world, sink, random = self._world, self._sink, self._world.random
        app, event_id, topic, number, offset = request.body.decode().split()
        post = Post(self._member, event_id, (topic, int(number), int(offset)))
        for watch in sink.on_post:
            watch(post)
        self._open[post] = answered
        name = sink.choose(app)
        behaviour = BEHAVIOURS[name]
        back_at = min(world.now + random.uniform(*sink.latency_s), deadline)
        answer: Answer | Fault = Fault.TIMEOUT
        if behaviour.answer is None:
            back_at = deadline
        elif back_at < deadline:
            answer = behaviour.answer
        is_success = isinstance(answer, Answer) and isinstance(classify(answer), Delivered)
        # an answer that didn't come in time may have been a success
        if is_success or world.is_likely(0.5 if behaviour.answer is OK else behaviour.accepts):
            last = deadline + 3.0 if behaviour.late else back_at
            world.at(random.uniform(world.now, last), partial(self._accept, post))
        world.note(self._member, f"POST {event_id} of {app} for {post.place}: {name}")
        world.at(back_at, partial(self._come_back, post, answer))

    def _accept(self, post: Post) -> None:
        # of a member that died meanwhile, the request may be lost on its way
        if not self.is_dead or self._world.is_likely(0.5):
            self._sink.accept(post)

    def _come_back(self, post: Post, answer: Answer | Fault) -> None:
        if not self.is_dead and post in self._open:
            self._loop.call_soon(self._tell, post, answer)  # type: ignore[attr-defined]

    def _tell(self, post: Post, answer: Answer | Fault) -> None:
        answered = self._open.pop(post, None)
        if answered is None:
            return
        post.is_on_the_wire = False
        post.is_clean = isinstance(classify(answer), Delivered)
        for watch in self._sink.on_answer:
            watch(post)
        answered(answer)

    async def close(self) -> None:
        for post in [*self._open]:
            self._tell(post, Fault.RESET)
