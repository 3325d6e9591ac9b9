"""One process on the bench: a real `app.Member` in virtual time, and what can be done to it."""

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from consumer import app
from consumer.errors import ConsumerError
from tests.simulation.consumer import FakeConsumer
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Connection
from tests.simulation.producer import FakeProducer
from tests.simulation.sink import FakeTransport
from tests.simulation.world import Strand

if TYPE_CHECKING:
    from tests.simulation.bench import Bench

ENDS = ("delivered", "filtered", "retried", "held", "dead_lettered", "abandoned")
STILL_S = 0.5
"""What standing still costs beyond its time: all that waited wants to be done at once."""


class Member:
    """`kill` ends it at once; the broker, the ledger and the oracle live on."""

    producer: FakeProducer
    transport: FakeTransport

    def __init__(self, bench: "Bench", name: str) -> None:
        self.bench = bench
        self.world = bench.world
        self.name = name
        self.frozen_until = self._loop_blocked_until = self._readers_blocked_until = 0.0
        self.clock_shift_ms = 0
        self.is_dead = False
        self.may_end = False
        """It was told to end, or given a reason to."""
        self.exit: str | None = None
        """How it ended: well, forced, killed, or the name of the error."""
        self.loop = VirtualLoop(
            self.world, lambda: max(self.frozen_until, self._loop_blocked_until), self._look_at_invariants
        )
        self.connection = Connection(bench.broker, self.held_until)
        self.consumers: list[FakeConsumer] = []
        self._strands: list[Strand] = []
        self.moves = 0
        """How often its pipeline took on records, or gave some up."""
        self._looked_at = -1
        bench.starting = self
        self.product = app.Member(bench.settings, self.loop, shadow=False)
        metrics = self.product._metrics
        self._counted = [metrics.events_consumed.values, *(getattr(metrics, f"events_{end}").values for end in ENDS)]
        kafka, delivery = bench.settings.kafka, bench.settings.delivery
        self._most_records = delivery.max_in_flight_records + 2 * kafka.batch_max_records
        self.world.note(self.name, "starts")
        self.loop.create_task(self._live())

    def held_until(self) -> float:
        return self.frozen_until

    async def _live(self) -> None:
        try:
            await self.product.run()
        except ConsumerError as error:
            if not self.may_end:
                self.bench.oracle.fail(f"{self.name} ended by itself: {error}")
            self.end(type(error).__name__)
        except Exception as error:
            self.bench.oracle.fail(f"{self.name} ended by a bug: {type(error).__name__}: {error}")
        else:
            self.end("well")

    def start_thread(self, body: Callable[[], None]) -> None:
        strand = Strand(self.world, self.name, lambda: max(self.frozen_until, self._readers_blocked_until))
        self._strands.append(strand)
        strand.start(body)

    def make_consumer(self, conf: dict[str, Any]) -> FakeConsumer:
        oracle = self.bench.oracle
        consumer = FakeConsumer(self.bench.broker, conf, held_until=self.held_until, yields=0.1)
        consumer.blocked = oracle.held_up[self.name]
        consumer.on_attempt = lambda partition, commit: oracle.attempted(self.name, partition, commit)
        consumer.connection.cut_until = self.connection.cut_until
        self.consumers.append(consumer)
        return consumer

    # -- what is done to it

    def kill(self) -> None:
        """Send SIGKILL."""
        self.end("killed")

    def end(self, how: str) -> None:
        """Let there be no process any more."""
        if self.is_dead:
            return
        self.world.note(self.name, f"ended: {how}")
        self.is_dead = True
        self.exit = how
        self.loop.die()
        self.transport.is_dead = True
        self.connection.die()
        for consumer in self.consumers:
            consumer.die()
        self._lose_sessions(lambda: True)
        for strand in self._strands:
            strand.kill()
        self.bench.oracle.died(self.name)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.may_end = True
        self.world.note(self.name, "SIGTERM")
        handler = self.loop.signal_handlers.get(signal.SIGTERM)
        if handler is None:  # before it listens
            self.kill()
        else:
            self.loop.call_soon(handler)

    def freeze(self, seconds: float) -> None:
        """Send SIGSTOP, and SIGCONT after *seconds*."""
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self._stands_still(seconds)
        self._lose_sessions(lambda: self.frozen_until > self.world.now)

    def cut(self, seconds: float) -> None:
        """Take its way to the broker."""
        for connection in (self.connection, *(consumer.connection for consumer in self.consumers)):
            connection.cut_until = max(connection.cut_until, self.world.now + seconds)
        self._stands_still(seconds)
        self._lose_sessions(lambda: self.connection.cut_until > self.world.now)

    def block_loop(self, seconds: float) -> None:
        self._loop_blocked_until = max(self._loop_blocked_until, self.world.now + seconds)
        self._stands_still(seconds)

    def block_readers(self, seconds: float) -> None:
        """Let the Kafka threads not come round."""
        self._readers_blocked_until = max(self._readers_blocked_until, self.world.now + seconds)
        self._stands_still(seconds)

    def _stands_still(self, seconds: float) -> None:
        self.bench.oracle.held_up[self.name].append([self.world.now, self.world.now + seconds + STILL_S])

    def _lose_sessions(self, still: Callable[[], bool]) -> None:
        """Let the coordinator think it dead, if it is *still* away when its session ends."""
        session_s = self.bench.settings.kafka.session_timeout_ms / 1000
        numbers = [consumer.member for consumer in self.consumers]

        def look() -> None:
            if self.bench.broker.is_away:  # a coordinator that comes back gives everybody a new session
                self.world.after(session_s, look)
            elif self.is_dead or still():
                for number in numbers:
                    self.bench.group.expire(number or 0)

        self.world.after(session_s, look)

    # -- what holds at every moment

    def _look_at_invariants(self) -> None:
        """I3, I6: all that was read has ended or is in flight, and no more is in the process than may be."""
        budget = self.product._budget
        moves = self.moves + budget.released_records
        if moves == self._looked_at:
            return
        self._looked_at = moves
        read, *ended = [sum(values.values()) for values in self._counted]
        ends = sum(ended)
        in_flight = sum([assignment.tracker.in_flight for assignment in self.product._pipeline.assignments])
        if read != ends + in_flight:
            self.bench.oracle.fail(f"I3: {self.name} read {read}, {ends} have ended, {in_flight} are in flight")
        if not 0 <= budget.records <= self._most_records:
            self.bench.oracle.fail(f"I6: {self.name} has {budget.records} records in it, not {self._most_records}")

    @property
    def is_ending(self) -> bool:
        return self.product.watchdog.is_started

    @property
    def stands_still(self) -> bool:
        held = (self.frozen_until, self._loop_blocked_until, self._readers_blocked_until, self.connection.cut_until)
        return self.world.now < max(held)

    @property
    def is_idle(self) -> bool:
        budget = self.product._budget
        return budget.records == 0 and budget.bytes == 0 and not budget.closed_for
