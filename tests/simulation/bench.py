"""Where members meet their world, and the seams between them: the whole list of what is put in place of something real.

All between the seams is the product: `app.Member` with both readers and their Kafka threads, commits, start positions,
rebalance, pipeline, delivery, breaker, lanes, parking, forwarding, settlement.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import structlog
import tenacity

from consumer import app, rebalance
from consumer.adapters import kafka_forwarder, kafka_positions, kafka_source
from consumer.adapters.kafka_forwarder import KafkaForwarder
from consumer.core.assignment import Assignment
from consumer.core.headers import ORIGIN_TOPIC
from consumer.core.record import Headers, Partition, Record
from consumer.core.retry import RetryPlan
from consumer.errors import ExitCode
from consumer.pipeline import Batch, Pipeline
from consumer.ports import ForwardProblem, Request, SchemaNeeded
from consumer.settings import Settings
from consumer.settlement import Positions
from consumer.translate import Filtered, Prepared, Refused, Step
from tests.simulation.broker import Broker, Client
from tests.simulation.consumer import FakeConsumer
from tests.simulation.loop import VirtualLoop
from tests.simulation.member import Member
from tests.simulation.oracle import Oracle
from tests.simulation.producer import FakeAdmin, FakeProducer
from tests.simulation.sink import APPS, FakeTransport, Sink
from tests.simulation.world import KilledError, Strand, World

SOURCE = "events"
GROUP = "kochava"
TIERS = ("1s", "3s")


@cache
def settings(batch_max_records: int, max_in_flight: int, connections: int, max_span: int, protocol: str) -> Settings:
    """Return settings that nest as real ones do, with everything faster."""
    return Settings.model_validate({
        "kafka": {
            "bootstrap_servers": "nowhere:9092", "group_id": GROUP, "topics": [SOURCE], "start": "earliest",
            "group_protocol": protocol, "session_timeout_ms": 3_000, "max_poll_interval_ms": 20_000,
            "committed_budget_s": 600, "batch_max_records": batch_max_records, "batch_max_wait_ms": 500,
        },
        "kochava": {"endpoint": "http://127.0.0.1/track/json", "apps": {app_name: {"guid": f"guid-{app_name}"} for app_name in APPS}},
        "delivery": {
            "max_in_flight_records": max_in_flight, "connections": connections, "max_span_records": max_span,
            "connect_timeout_s": 1, "request_timeout_s": 1.5, "retry_budget_s": 3, "drain_timeout_s": 4,
            "close_timeout_s": 8, "max_attempts": 3, "backoff_initial_s": 0.25, "backoff_max_s": 1,
        },
        "breaker": {"window_answers": 20, "min_answers": 8, "unconfirmed_window": 50, "unconfirmed_share": 0.1,
                    "probe_initial_s": 0.5, "probe_max_s": 2},
        "lane": {"waiting_records": 3, "waiting_s": 2, "probe_initial_s": 0.5, "probe_max_s": 2, "held_sweep_s": 3},
        "retry": {"tiers": list(TIERS)},
        "dead_letter": {"max_share": 1},
        "admin": {"listen": ""},
    })  # fmt: skip


class Bench:
    """A world with a broker, a Kochava, an oracle and the members of one group."""

    def __init__(self, seed: int, chosen: Settings, *, tracing: bool = False) -> None:
        self.world = World(seed, tracing=tracing)
        self.settings = chosen
        self.broker = Broker(self.world)
        self.group = self.broker.group(GROUP)
        self.sink = Sink(self.world)
        self.oracle = Oracle(self.world, self.broker)
        self.plan = RetryPlan.of(chosen.topic_prefix, chosen.retry.tiers)
        self.oracle.watch(self.group, self.sink, self.plan.dead_letter_topic)
        self.group.on_removed.append(self._removed)
        self.members: dict[str, Member] = {}
        self.starting: Member | None = None
        """Who is being made: constructors of the product look here to whom they belong."""

    @property
    def owner(self) -> Member:
        assert self.starting is not None, "something of the product is made outside of a member's start"
        return self.starting

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members.values() if not member.is_dead]

    def _removed(self, client: Client, owned: Iterable[Partition]) -> None:
        for member in self.members.values():
            if client in member.consumers:
                self.oracle.removed(member.name, owned)

    def start_member(self) -> Member:
        name = f"m{len(self.members) + 1}"
        self.members[name] = member = Member.__new__(Member)
        member.__init__(self, name)  # type: ignore[misc] - its own constructor asks for it by name
        return member

    @contextmanager
    def seams(self) -> Iterator[None]:
        """Put the simulation in the place of the outside world, as long as this lasts."""
        instead: list[tuple[object, dict[str, Any]]] = [
            (app, {
                "AdminServer": _NoAdmin, "FastTransport": self._transport, "KafkaForwarder": _forwarder(self),
                "Pipeline": _pipeline(self), "Random": lambda: Random(self.world.random.random()),
                "SystemClock": lambda: _Clock(self.owner), "Watchdog": lambda after_s: _Watchdog(self.owner, after_s),
                "gc": SimpleNamespace(collect=int, freeze=int, set_threshold=lambda *_: None), "make_decoder": lambda *_: _Decoder(self.world),
                "make_translator": lambda _settings, decoder, _tell: _Translator(decoder),
                "kafka_logger": lambda: None,
                "socket": SimpleNamespace(gethostname=lambda: self.owner.name),
                "threading": SimpleNamespace(Thread=self._thread),
                "time": SimpleNamespace(sleep=self.world.sleep),
            }),
            (kafka_source, {"Consumer": self._consumer, "threading": SimpleNamespace(Event=lambda: _Event(self.world))}),
            (kafka_positions, {"AdminClient": lambda _conf: FakeAdmin(self.broker)}),
            (kafka_forwarder, {"Producer": self._producer}),
            (rebalance, {"asyncio": SimpleNamespace(run_coroutine_threadsafe=self._run_threadsafe)}),
            # a loop's turn may run on any of our threads
            (tenacity, {"threading": SimpleNamespace(local=SimpleNamespace)}),
            # sets of them are walked through: by address, no two runs would be the same
            (Assignment, {"__hash__": lambda assignment: hash((assignment.epoch, assignment.start))}),
        ]  # fmt: skip
        before = structlog.get_config()
        with ExitStack() as stack:
            for where, names in instead:
                for name, what in names.items():
                    stack.enter_context(mock.patch.object(where, name, what))
            _configure_log(self.world)
            try:
                yield
            finally:
                structlog.configure(**before)

    # -- factories that the product calls

    def _consumer(self, conf: dict[str, Any]) -> FakeConsumer:
        return self.members[conf["client.id"]].make_consumer(conf)

    def _producer(self, conf: dict[str, Any]) -> FakeProducer:
        self.owner.producer = FakeProducer(self.broker, conf, self.owner.connection)
        return self.owner.producer

    def _transport(self, _endpoint: str, **_: object) -> FakeTransport:
        member = self.owner
        member.transport = FakeTransport(self.world, self.sink, member.name, member.loop)
        return member.transport

    def _thread(self, *, target: Any, args: tuple[Any, ...], name: str, daemon: bool) -> SimpleNamespace:
        assert daemon, f"{name} must not keep a process alive"
        member = self.members[target.__self__._client_id]
        return SimpleNamespace(start=lambda: member.start_thread(lambda: target(*args)))

    def _run_threadsafe(self, coroutine: Coroutine[Any, Any, Positions], loop: VirtualLoop) -> "_Future":
        return _Future(self.world, coroutine, loop)


class _Future:
    """What `run_coroutine_threadsafe` returns, with a `result` that waits in virtual time."""

    def __init__(self, world: World, coroutine: Coroutine[Any, Any, Positions], loop: VirtualLoop) -> None:
        self._world = world
        self._strand: Strand | None = None
        self._coroutine = coroutine
        self._future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        self._future.add_done_callback(lambda _: self._strand and self._strand.wake())

    def result(self, timeout: float) -> Positions:
        world = self._world
        deadline = world.now + timeout
        self._strand = world.current
        while not self._future.done():
            if world.now >= deadline:
                raise concurrent.futures.TimeoutError
            try:
                world.current.wait(deadline)
            except KilledError:
                self._coroutine.close()
                raise
        return self._future.result(0)

    def cancel(self) -> bool:
        return self._future.cancel()


class _Event:
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


class _Clock:
    def __init__(self, member: Member) -> None:
        self._member = member

    def monotonic(self) -> float:
        return self._member.world.now

    def wall_ms(self) -> int:
        return self._member.world.wall_ms() + self._member.clock_shift_ms


class _Watchdog:
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


class _NoAdmin:
    def __init__(self, *_: object) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def _pipeline(bench: Bench) -> type[Pipeline]:
    """Return the real one, watched: the oracle learns who had which partition from when to when."""

    class Watched(Pipeline):
        def __init__(self, **parts: Any) -> None:
            self._member = bench.owner
            super().__init__(**parts)

        def assigned(self, assignments: Sequence[Assignment]) -> None:
            bench.oracle.began(self._member.name, assignments)
            super().assigned(assignments)

        def take(self, batch: Batch) -> None:
            self._member.moves += 1
            super().take(batch)

        async def drain(self, assignments: Sequence[Assignment], *, timeout_s: float, reason: str) -> Positions:
            bench.oracle.drains(assignments, bench.world.now + timeout_s)
            return await super().drain(assignments, timeout_s=timeout_s, reason=reason)

        def fence(self, assignments: Sequence[Assignment], *, reason: str) -> Positions:
            bench.oracle.ended(assignments, reason)
            self._member.moves += 1
            return super().fence(assignments, reason=reason)

    return Watched


def _forwarder(bench: Bench) -> type[KafkaForwarder]:
    """Return the real one, watched: the oracle learns for which place a copy is made."""

    class Watched(KafkaForwarder):
        def __init__(self, conf: dict[str, Any], loop: Any, failed: Callable[[str], None]) -> None:
            self._member = bench.owner
            super().__init__(conf, loop, failed)

        def forward(
            self, topic: str, record: Record, headers: Headers, reported: Callable[[ForwardProblem | None], None]
        ) -> None:
            copy = None
            if any(name == ORIGIN_TOPIC for name, _ in headers):  # the mark of a first start is no copy
                copy = bench.oracle.copies(self._member.name, record)

            def heard(problem: ForwardProblem | None) -> None:
                if problem is None and copy is not None:
                    copy.told_at = bench.world.now
                reported(problem)

            self._member.producer.carries = copy
            super().forward(topic, record, headers, heard)

    return Watched


class _Decoder:
    """Knows no schema until it was fetched, which takes a while."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.known: set[object] = set()

    async def fetch(self, reference: object) -> None:
        await asyncio.sleep(self._world.random.choice([0.01, 0.5, 6.0]))
        self.known.add(reference)

    async def close(self) -> None: ...


class _Translator:
    """The value is the command: what is to become of it, its app and its id."""

    def __init__(self, decoder: _Decoder) -> None:
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


def _configure_log(world: World) -> None:
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


