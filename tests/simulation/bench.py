"""Where members meet their world, and the seams between them: the whole list of what is put in place of something real.

All between the seams is the product: `app.Member` with both readers and their Kafka threads, commits, start positions,
rebalance, pipeline, delivery, breaker, lanes, parking, forwarding, settlement.
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import structlog
import tenacity

from consumer import app, rebalance
from consumer.adapters import kafka_forwarder, kafka_positions, kafka_source
from consumer.core.assignment import Assignment
from consumer.core.record import Partition
from consumer.core.retry import RetryPlan
from consumer.settings import Settings
from consumer.settlement import Positions
from tests.simulation.broker import Broker
from tests.simulation.consumer import FakeConsumer
from tests.simulation.coordinator import Client
from tests.simulation.doubles import (
    Clock,
    Decoder,
    DrainFuture,
    NoAdmin,
    RoomEvent,
    Translator,
    Watchdog,
    configure_log,
)
from tests.simulation.loop import VirtualLoop
from tests.simulation.member import Member
from tests.simulation.oracle import Oracle
from tests.simulation.producer import FakeAdmin, FakeProducer
from tests.simulation.sink import APPS, FakeTransport, Sink
from tests.simulation.watched import watched_forwarder, watched_pipeline, watched_rebalance
from tests.simulation.world import World

SOURCE = "events"
GROUP = "kochava"
TIERS = ("1s", "3s")


@cache
def settings(
    batch_max_records: int, max_in_flight: int, connections: int, max_span: int, protocol: str, order: str,
    max_per_s: float | None,
) -> Settings:  # fmt: skip
    """Return settings that nest as real ones do, with everything faster."""
    return Settings.model_validate({
        "kafka": {
            "bootstrap_servers": "nowhere:9092", "group_id": GROUP, "topics": [SOURCE], "start": "earliest",
            "group_protocol": protocol, "session_timeout_ms": 3_000, "max_poll_interval_ms": 20_000,
            "committed_budget_s": 600, "batch_max_records": batch_max_records, "batch_max_wait_ms": 500,
        },
        "kochava": {"endpoint": "http://127.0.0.1/track", "apps": {name: {"guid": f"guid-{name}"} for name in APPS}},
        "delivery": {
            "max_in_flight_records": max_in_flight, "connections": connections, "max_span_records": max_span,
            "connect_timeout_s": 1, "request_timeout_s": 1.5, "retry_budget_s": 3, "drain_timeout_s": 4,
            "close_timeout_s": 8, "order": order, "max_per_s": max_per_s, "burst": max_per_s and 2, "max_attempts": 3,
            "backoff_initial_s": 0.25, "backoff_max_s": 1,
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
        self.group.on_taken.append(partial(self._tell, self.oracle.taken))
        self.group.on_given_back.append(partial(self._tell, self.oracle.handed_over))
        self.members: dict[str, Member] = {}
        self._drains: list[DrainFuture] = []
        self.starting: Member | None = None
        """Who is being made: constructors of the product look here to whom they belong."""

    @property
    def owner(self) -> Member:
        assert self.starting is not None, "something of the product is made outside of a member's start"
        return self.starting

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members.values() if not member.is_dead]

    def _tell(
        self, told: Callable[[str, Iterable[Partition]], None], client: Client, partitions: Iterable[Partition]
    ) -> None:
        for member in self.members.values():
            if client in member.consumers:
                told(member.name, partitions)

    def start_member(self) -> Member:
        name = f"m{len(self.members) + 1}"
        self.members[name] = Member(self, name)
        return self.members[name]

    def end(self) -> None:
        """Kill whoever lives, and leave nothing behind."""
        for member in self.alive:
            member.kill()
        self.world.end()
        for drain in self._drains:
            drain.close()

    @contextmanager
    def seams(self) -> Iterator[None]:
        """Put the simulation in the place of the outside world, as long as this lasts."""
        instead: list[tuple[object, dict[str, Any]]] = [
            (app, {
                "AdminServer": NoAdmin, "FastTransport": self._transport, "KafkaForwarder": watched_forwarder(self),
                "Pipeline": watched_pipeline(self), "Rebalance": watched_rebalance(self),
                "Random": lambda: Random(self.world.random.random()),
                "SystemClock": lambda: Clock(self.owner), "Watchdog": lambda after_s: Watchdog(self.owner, after_s),
                "gc": SimpleNamespace(collect=int, freeze=int, set_threshold=lambda *_: None),
                "make_decoder": lambda *_: Decoder(self.world),
                "make_translator": lambda _settings, decoder, _tell: Translator(decoder),
                "kafka_logger": lambda: None,
                "socket": SimpleNamespace(gethostname=lambda: self.owner.name),
                "threading": SimpleNamespace(Thread=self._thread),
                "time": SimpleNamespace(sleep=self.world.sleep),
            }),
            (kafka_source, {
                "Consumer": self._consumer, "threading": SimpleNamespace(Event=lambda: RoomEvent(self.world)),
            }),
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
            configure_log(self.world)
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

    def _run_threadsafe(self, coroutine: Coroutine[Any, Any, Positions], loop: VirtualLoop) -> DrainFuture:
        name = next(member.name for member in self.members.values() if member.loop is loop)
        self._drains.append(DrainFuture(self.world, coroutine, loop, self.oracle.held_up[name]))
        return self._drains[-1]
