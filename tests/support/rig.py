"""The pipeline on a bench: real core, real pipeline, fakes at the ports, time in the test's hand.

Time passes only by `advance`. Timers of the event loop (the flush of positions, tenacity's pauses) see the same time,
since the loop's clock is the manual one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from consumer.core.assignment import Assignment
from consumer.core.breaker import Breaker, BreakerPolicy
from consumer.core.budget import InFlightBudget
from consumer.core.concurrency import Concurrency, ConcurrencyPolicy
from consumer.core.flood_guard import FloodGuard
from consumer.core.lane import LanePolicy
from consumer.core.offset_map import OffsetMap, decode
from consumer.core.outcome import Answer, Fault
from consumer.core.rate import Rate
from consumer.core.record import Headers, Partition, Record
from consumer.core.retry import RetryPlan
from consumer.delivery import Delivery, DeliveryPolicy
from consumer.duplicates import Duplicates
from consumer.envelope import Envelope
from consumer.forwarding import Forwarding
from consumer.key_order import KeyOrder
from consumer.lanes import Lanes
from consumer.pipeline import Pipeline
from consumer.ports import Answered, Apart, Decoded, ForwardProblem, Request, SchemaNeeded, Undecodable
from consumer.settlement import Positions, Settlement
from consumer.telemetry import Metrics
from consumer.translate import Filtered, Held, Prepared, Refused, Step

OK = Answer(200, b'{"success":"1"}')
PLAN = RetryPlan.of("events.kochava", ("30s", "5m"))


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until it is moved."""

    now = 1000.0

    def time(self) -> float:
        return self.now


@dataclass
class ManualClock:
    loop: ManualLoop

    def monotonic(self) -> float:
        return self.loop.now

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + round((self.loop.now - 1000.0) * 1000)


class FakeTransport:
    """Keeps requests until the test answers them, in any order."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Request, float, Answered]] = deque()
        self.sent: list[str] = []

    def send(self, request: Request, deadline: float, answered: Answered) -> None:
        self.sent.append(request.body.decode())
        self.waiting.append((request, deadline, answered))

    async def close(self) -> None: ...


class FakeForwarder:
    """Keeps records until the test lets the broker acknowledge or refuse them."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, Record, Headers, Callable[[ForwardProblem | None], None]]] = deque()
        self.acknowledged: list[tuple[str, Record, dict[str, str]]] = []

    def forward(
        self, topic: str, record: Record, headers: Headers, reported: Callable[[ForwardProblem | None], None]
    ) -> None:
        self.waiting.append((topic, record, headers, reported))

    async def close(self, timeout_s: float) -> None: ...


class FakeTranslator:
    """The value is the command: `app:name`, `drop`, `bad`, `hold`, `deep`, `fatal`, or `schema` until fetched.

    `#id` ends it with an event id.
    """

    fetched = False

    def translate(self, record: Record) -> Step:
        text = (record.value or b"").decode()
        match text.split(":")[0]:
            case "drop":
                return Filtered("condition")
            case "bad":
                return Refused("decode", "truncated")
            case "hold":
                return Held("unknown", "unknown_app")
            case "schema" if not self.fetched:
                return SchemaNeeded(17)
            case "deep" | "fatal":
                return Apart(1, text)
        return self._prepared(text)

    def go_on(self, decoded: Decoded | Undecodable) -> Step:
        if isinstance(decoded, Undecodable):
            return Refused("decode", decoded.reason)
        return self._prepared(str(decoded.datum["value"]))

    @staticmethod
    def _prepared(text: str) -> Step:
        app = text.split(":")[0] if ":" in text else "game"
        return Prepared(
            app, "Purchase", None, Request(text.encode()), (), text.partition("#")[2] if "#" in text else None
        )


class FakeDecoder:
    def __init__(self, translator: FakeTranslator) -> None:
        self._translator = translator
        self.here = asyncio.Event()
        self.apart: list[str] = []
        """Records in the process apart."""
        self.apart_gate = asyncio.Event()

    async def decode_apart(self, work: object) -> Decoded | Undecodable:
        self.apart.append(str(work))
        try:
            await self.apart_gate.wait()
        finally:
            self.apart.remove(str(work))
        return Undecodable("killed_decoder") if work == "fatal" else Decoded(1, {"value": work})

    async def fetch(self, _reference: object) -> None:
        await self.here.wait()
        self._translator.fetched = True


@dataclass
class Rig:
    """One pipeline. `read` gives it records; `answer` and `acknowledge` play the outside world."""

    loop: ManualLoop
    switched_off: frozenset[str] = frozenset()
    connections: int = 100
    max_span_records: int = 1000
    window_records: int = 0
    max_attempts: int = 4
    rate: Rate | None = None
    rates: dict[str, Rate] = field(default_factory=dict)
    is_ordered: bool = False
    lane: LanePolicy = field(default_factory=lambda: LanePolicy(waiting_records=2))
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    guard: FloodGuard = field(default_factory=lambda: FloodGuard(0.05, 10_000, 100))

    def __post_init__(self) -> None:
        self.clock = ManualClock(self.loop)
        self.metrics = Metrics()
        self.budget = InFlightBudget(1024, 1 << 25)
        self.intake = self.budget.new_intake()
        self.transport = FakeTransport()
        self.forwarder = FakeForwarder()
        self.translator = FakeTranslator()
        self.decoder = FakeDecoder(self.translator)
        self.published: dict[Partition, int] = {}
        self.maps: dict[Partition, OffsetMap] = {}
        self.sweeps: list[int | None] = []
        self.epoch = 0
        self.settlement = Settlement(
            budget=self.budget, guard=self.guard, metrics=self.metrics, clock=self.clock,
            publish=self._publish, wake_readers=lambda: None,
        )  # fmt: skip
        self.forwarding = Forwarding(
            forwarder=self.forwarder, plan=PLAN, settlement=self.settlement, metrics=self.metrics, clock=self.clock
        )
        breaker, random = Breaker(self.breaker), Random(1)
        lanes = Lanes(
            self.lane, switched_off=self.switched_off, rates=self.rates, breaker=breaker, forwarding=self.forwarding,
            settlement=self.settlement, metrics=self.metrics, clock=self.clock, random=random, requeue=self._requeue,
            sweep_held=self.sweeps.append,
        )  # fmt: skip
        self.delivery = Delivery(
            transport=self.transport, breaker=breaker,
            concurrency=Concurrency(ConcurrencyPolicy(self.connections, self.connections)),
            rate=self.rate, lanes=lanes, forwarding=self.forwarding, settlement=self.settlement,
            policy=DeliveryPolicy(max_attempts=self.max_attempts), metrics=self.metrics, clock=self.clock,
            random=random, resume=self._resume,
        )  # fmt: skip
        duplicates = Duplicates(
            self.window_records, delivery=self.delivery, settlement=self.settlement, requeue=self._requeue
        )
        self.pipeline = Pipeline(
            decoder=self.decoder, translator=self.translator, delivery=self.delivery, forwarding=self.forwarding,
            settlement=self.settlement, our_topics=frozenset(PLAN.topics),
            max_span_records=self.max_span_records, metrics=self.metrics, clock=self.clock,
            duplicates=duplicates if self.window_records else None,
            order=KeyOrder(settlement=self.settlement, requeue=self._requeue) if self.is_ordered else None,
        )  # fmt: skip

    def _resume(self) -> None:
        self.pipeline.pump()

    def _requeue(self, envelopes: Iterable[Envelope]) -> None:
        self.pipeline.requeue(envelopes)

    def _publish(self, positions: Positions) -> None:
        for assignment, offset, metadata in positions:
            self.published[assignment.partition] = offset
            self.maps[assignment.partition] = decode(metadata, offset, limit=2**62)

    # -- the source

    def assign(
        self,
        topic: str = "events",
        number: int = 0,
        start: int = 0,
        before: OffsetMap = OffsetMap(),  # noqa: B008
    ) -> Assignment:
        self.epoch += 1
        assignment = Assignment(Partition(topic, number), self.epoch, start, before)
        self.pipeline.assigned([assignment])
        return assignment

    def read(
        self,
        assignment: Assignment,
        *values: str,
        headers: Headers = (),
        start: int | None = None,
        key: bytes | None = b"key",
    ) -> None:
        first = assignment.tracker.next if start is None else start
        topic, number = assignment.partition
        records = [
            Record(topic, number, first + index, self.clock.wall_ms(), key, value.encode(), headers)
            for index, value in enumerate(values)
        ]
        self.intake.taken_records += len(records)
        self.intake.taken_bytes += sum(record.size_bytes for record in records)
        self.pipeline.take([(assignment, record) for record in records])

    # -- the outside world

    async def answer(self, answer: Answer | Fault = OK, *, which: str | None = None) -> str:
        """Answer the oldest request, or the oldest with the body *which*."""
        for index, (request, _, answered) in enumerate(self.transport.waiting):
            if which is None or request.body.decode() == which:
                del self.transport.waiting[index]
                answered(answer)
                await self.settle()
                return request.body.decode()
        raise AssertionError(f"no request {which!r} is on the wire")

    async def answer_all(self, answer: Answer | Fault = OK) -> None:
        while self.transport.waiting:
            await self.answer(answer)

    async def acknowledge(self, problem: str | None = None) -> None:
        """Let the broker answer for everything that was forwarded."""
        while self.forwarder.waiting:
            topic, record, headers, reported = self.forwarder.waiting.popleft()
            if problem is None:
                ours = {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
                self.forwarder.acknowledged.append((topic, record, ours))
            reported(None if problem is None else ForwardProblem(problem))
            if problem is not None:
                break
        await self.settle()

    @staticmethod
    async def settle() -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    async def advance(self, seconds: float, *, tick: bool = True) -> None:
        """Let time pass, in steps of the pipeline's tick."""
        left = seconds
        while left > 0:
            step = min(left, 0.25)
            self.loop.now += step
            left -= step
            await self.settle()
            if tick:
                self.pipeline.tick()
            await self.settle()

    # -- what a test wants to know

    def count(self, name: str) -> int:
        return sum(getattr(self.metrics, name).values.values())

    def forwarded(self) -> list[tuple[str, str]]:
        return [(topic.rpartition("kochava.")[2], (record.value or b"").decode())
                for topic, record, _ in self.forwarder.acknowledged]  # fmt: skip

    def check_conservation(self) -> None:
        """I3: everything that was read is accounted for, at this very moment."""
        ends = sum(
            self.count(f"events_{end}")
            for end in ("delivered", "filtered", "retried", "held", "dead_lettered", "abandoned")
        )
        in_flight = sum(assignment.tracker.in_flight for assignment in self.pipeline.assignments)
        assert self.count("events_consumed") == ends + in_flight


def on_the_bench(test: Callable[[Rig], object], **options: object) -> None:
    """Run the coroutine function *test* with a fresh rig, and check conservation when it ends."""
    loop = ManualLoop()

    async def body() -> None:
        rig = Rig(loop, **options)  # type: ignore[arg-type]
        await test(rig)  # type: ignore[misc]
        rig.check_conservation()
        await rig.pipeline.close()

    try:
        loop.run_until_complete(asyncio.wait_for(body(), None))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
