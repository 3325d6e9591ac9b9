"""What goes wrong in a schedule. Each fault ends by itself, or when everything is healed."""

from collections import Counter
from collections.abc import Callable
from functools import partial

from confluent_kafka import KafkaError

from tests.simulation.bench import Bench
from tests.simulation.member import Member
from tests.simulation.producer import FakeProducer
from tests.simulation.sink import APPS, BEHAVIOURS

MOST_MEMBERS = 4
FAULTS = {
    "kill": 6, "kill_all": 1, "terminate": 4, "join": 3, "freeze": 3, "cut": 2, "block_loop": 2, "block_readers": 1,
    "jump_clock": 1, "hurt_sink": 10, "slow_sink": 2, "refuse_app": 3, "broker_away": 3, "refuse_commits": 3,
    "lose_commit_answers": 2, "rebalance": 4, "refuse_copies": 3, "lose_reports": 2, "fill_producer": 1, "fatal": 1,
    "fatal_producer": 1,
}  # fmt: skip
"""By name, how often each is chosen."""
REFUSALS = (
    KafkaError.REBALANCE_IN_PROGRESS, KafkaError.NOT_COORDINATOR, KafkaError.REQUEST_TIMED_OUT,
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)  # fmt: skip


class Faults:
    """Injects faults into a bench, all healed by *ends_at*."""

    def __init__(self, bench: Bench, ends_at: float) -> None:
        self.bench = bench
        self.world = bench.world
        self.random = bench.world.random
        self.counts: Counter[str] = Counter()
        self._ends_at = ends_at

    def inject(self) -> None:
        """Let one thing go wrong, now."""
        name = self.random.choices([*FAULTS], [*FAULTS.values()])[0]
        self.counts[name] += 1
        self.world.note("FAULT", name.replace("_", " "))
        getattr(self, name)()

    def _later(self, longest_s: float, heal: Callable[[], None]) -> None:
        """Let *heal* end a fault, some time within the faults' own."""
        left = self._ends_at - self.world.now
        self.world.after(min(self.random.uniform(0.1, longest_s), max(left, 0.0)), heal)

    def _victim(self) -> Member | None:
        alive = [member for member in self.bench.alive if not member.may_end]
        return self.random.choice(alive) if alive else None

    # -- members

    def join(self) -> None:
        if len(self.bench.alive) < MOST_MEMBERS:
            self.bench.start_member()

    def kill(self) -> None:
        if (member := self._victim()) is not None:
            member.kill()
        self.world.after(self.random.choice([0.0, 1.0, 3.0]), self.join)

    def kill_all(self) -> None:
        for member in self.bench.alive:
            member.kill()
        self.world.after(0.5, self.join)

    def terminate(self) -> None:
        if (member := self._victim()) is not None:
            member.terminate()
            if self.random.random() < 0.15:
                self.world.after(self.random.uniform(0, 2), lambda: None if member.is_dead else member.terminate())
        self.world.after(self.random.uniform(0, 2), self.join)

    def freeze(self) -> None:
        if (member := self._victim()) is not None:
            member.freeze(self.random.choice([0.5, 2.0, 4.0, 8.0]))

    def cut(self) -> None:
        if (member := self._victim()) is not None:
            member.cut(self.random.choice([0.5, 2.0, 4.0, 8.0]))

    def block_loop(self) -> None:
        if (member := self._victim()) is not None:
            member.block_loop(self.random.choice([0.5, 2.0, 6.0, 14.0]))

    def block_readers(self) -> None:
        if (member := self._victim()) is not None:
            member.block_readers(self.random.choice([0.5, 3.0, 25.0]))

    # -- Kochava

    def hurt_sink(self) -> None:
        bad = self.random.choice([name for name in BEHAVIOURS if name not in {"ok", "401"}])
        self.world.note("FAULT", bad)
        share = self.random.choice([0.1, 0.5, 1.0])
        self.bench.sink.mix = {"ok": 1 - share, bad: share} if share < 1 else {bad: 1.0}
        self._later(4.0, self._heal_sink)

    def _heal_sink(self) -> None:
        self.bench.sink.mix = {"ok": 1.0}

    def slow_sink(self) -> None:
        self.bench.sink.latency_s = self.random.choice([(0.1, 0.6), (0.5, 1.6)])
        self._later(4.0, self._quicken_sink)

    def _quicken_sink(self) -> None:
        self.bench.sink.latency_s = (0.005, 0.08)

    def refuse_app(self) -> None:
        app = self.random.choice(APPS)
        self.bench.sink.refused_apps.add(app)
        self._later(6.0, lambda: self.bench.sink.refused_apps.discard(app))

    # -- the broker

    def broker_away(self) -> None:
        self.bench.broker.is_away = True
        self._later(8.0, self._broker_back)

    def _broker_back(self) -> None:
        self.bench.broker.is_away = False

    def refuse_commits(self) -> None:
        code, share = self.random.choice(REFUSALS), self.random.choice([0.3, 1.0])
        self.bench.group.refusal = lambda: code if self.random.random() < share else None
        self._later(4.0, self._accept_commits)

    def _accept_commits(self) -> None:
        self.bench.group.refusal = lambda: None

    def lose_commit_answers(self) -> None:
        """Write commits down, and say that they timed out."""
        self.bench.group.loses_answers = self.random.choice([0.3, 1.0])
        self._later(4.0, self._give_answers)

    def _give_answers(self) -> None:
        self.bench.group.loses_answers = 0.0

    def refuse_copies(self) -> None:
        topic = self.random.choice(self.bench.plan.topics)
        self.bench.broker.refused_topics.add(topic)
        self._later(4.0, lambda: self.bench.broker.refused_topics.discard(topic))

    def lose_reports(self) -> None:
        for member in self.bench.alive:
            member.producer.lost_reports = 0.5
        self._later(4.0, self._give_reports)

    def _give_reports(self) -> None:
        for member in self.bench.alive:
            member.producer.lost_reports = 0.0

    def fill_producer(self) -> None:
        if (member := self._victim()) is not None:
            member.producer.is_full = True
            self._later(3.0, partial(self._empty, member.producer))

    @staticmethod
    def _empty(producer: FakeProducer) -> None:
        producer.is_full = False

    def jump_clock(self) -> None:
        if (member := self._victim()) is not None:
            member.clock_shift_ms += self.random.choice([-3_600_000, -5_000, 5_000, 3_600_000])

    def rebalance(self) -> None:
        """Let the coordinator share out everything anew."""
        for member in self.bench.group.members.values():
            if self.random.random() < 0.5:
                self.bench.group.expire(member.number)
                return

    def fatal(self) -> None:
        if (member := self._victim()) is not None and member.consumers:
            member.may_end = True
            self.random.choice(member.consumers).become_fatal()
            self.bench.oracle.falls_dumb(member.name)
            self.world.after(3.0, self.join)

    def fatal_producer(self) -> None:
        if (member := self._victim()) is not None:
            member.may_end = True
            member.producer.fatal = KafkaError(KafkaError._FATAL)
            self.world.after(3.0, self.join)

    # -- the end of all that

    def heal(self) -> None:
        """Mend what can be mended; who stands still goes on by himself."""
        self.world.note("FAULT", "all is healed")
        self._heal_sink()
        self._quicken_sink()
        self._broker_back()
        self._accept_commits()
        self._give_reports()
        self._give_answers()
        self.bench.sink.refused_apps.clear()
        self.bench.broker.refused_topics.clear()
        for member in self.bench.alive:
            self._empty(member.producer)
