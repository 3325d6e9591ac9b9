"""A schedule: what one seed makes happen to a bench, and how it ends. `play` runs it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from confluent_kafka import KafkaError

from consumer.core.record import Partition
from tests.simulation.bench import SOURCE, Bench, settings
from tests.simulation.oracle import ViolationError
from tests.simulation.sink import APPS, BEHAVIOURS
from tests.simulation.world import START_S, DeadlockError, World

REST_S = 150.0
"""By when it must have come to rest after everything was healed."""
REFUSALS = (
    KafkaError.REBALANCE_IN_PROGRESS, KafkaError.NOT_COORDINATOR, KafkaError.REQUEST_TIMED_OUT,
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)  # fmt: skip


@dataclass
class Played:
    """What came of a seed."""

    seed: int
    violation: str | None
    events: int
    records: int
    commits: int
    sent_twice: int
    explained: Counter[str]
    faults: Counter[str]
    virtual_s: float
    trace: list[str]


def play(seed: int, *, tracing: bool = False) -> Played:
    """Run the schedule of *seed*; the same seed gives the same history."""
    bench = Bench(seed, _settings(seed), tracing=tracing)
    schedule = Schedule(bench)
    violation = None
    with bench.seams():
        try:
            schedule.run()
        except (ViolationError, DeadlockError) as error:
            violation = f"{type(error).__name__}: {error}"
        finally:
            for member in bench.alive:
                member.kill()
            bench.world.end()
    oracle, world = bench.oracle, bench.world
    return Played(
        seed, violation, world.events, len(oracle.wants), oracle.commits, oracle.sent_twice, oracle.explained,
        schedule.faults, world.now - START_S, world.trace or [],
    )  # fmt: skip


def _settings(seed: int) -> "object":
    random = Random(f"settings {seed}")
    batch, in_flight = random.choice([(3, 8), (10, 16), (50, 64)])
    connections = random.choice([2, 8])
    span = random.choice([in_flight, in_flight * 2, 1000])
    return settings(batch, in_flight, connections, span, random.choice(["classic", "consumer"]))


class Schedule:
    """Members, records and faults, drawn from the world's chance."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.world: World = bench.world
        self.random = bench.world.random
        self.faults: Counter[str] = Counter()
        self._lasts_s = self.random.uniform(3, 10)

    def run(self) -> None:
        bench, random = self.bench, self.random
        bench.broker.create_topic(SOURCE, random.randint(1, 3))
        for topic in bench.plan.topics:
            bench.broker.create_topic(topic, 1 if random.random() < 0.7 else 2)
        self._plan_records()
        for _ in range(random.randint(1, 3)):
            self.world.after(random.uniform(0, 1), self._start_member)
        for _ in range(random.choice([0, 1, 1, 2, 2, 3, 4, 6])):
            self.world.after(random.uniform(0.2, self._lasts_s), self._inject)
        self.world.sleep(self._lasts_s)
        self._heal()
        self._come_to_rest()
        bench.oracle.judge()
        self._stop()
        bench.oracle.judge()

    # -- records

    def _plan_records(self) -> None:
        random = self.random
        partitions = self.bench.broker.partitions_of(SOURCE)
        is_early = random.random() < 0.3
        for number in range(random.randint(15, 60)):
            what = random.choices(["ok", "drop", "bad", "schema1", "schema2"], [90, 4, 3, 2, 1])[0]
            at = 0.0 if is_early else random.uniform(0, self._lasts_s)
            gap = random.randint(1, 3) if random.random() < 0.05 else 0
            value = f"{what} {random.choice(APPS)} e{number}"
            self.world.after(at, partial(self._produce, random.choice(partitions), value, gap))

    def _produce(self, partition: Partition, value: str, gap: int) -> None:
        broker = self.bench.broker
        what, _, event_id = value.split()
        headers = ((("trace", b"t"),) if self.random.random() < 0.2 else ())
        offset = broker.append(partition, event_id.encode(), value.encode(), headers)
        self.bench.oracle.wants[*partition, offset] = "" if what == "drop" else event_id
        if gap:
            broker.logs[partition].skip(gap)

    # -- faults

    def _start_member(self) -> None:
        if len(self.bench.alive) < 4:
            self.bench.start_member()

    def _inject(self) -> None:
        weights: dict[Callable[[], None], int] = {
            self.kill: 6, self.terminate: 4, self.join: 3, self.freeze: 3, self.cut: 2, self.block_loop: 2,
            self.block_readers: 1, self.hurt_sink: 10, self.refuse_app: 3, self.slow_sink: 2, self.broker_away: 3,
            self.refuse_commits: 3, self.refuse_copies: 3, self.lose_reports: 2, self.fill_producer: 1,
            self.jump_clock: 1, self.rebalance: 2, self.fatal: 1, self.fatal_producer: 1, self.kill_all: 1,
        }  # fmt: skip
        fault = self.random.choices([*weights], [*weights.values()])[0]
        self.faults[fault.__name__] += 1
        self.world.note("FAULT", fault.__name__.replace("_", " "))
        fault()

    def _later(self, longest_s: float, heal: Callable[[], None]) -> None:
        """Let *heal* end a fault, some time within the faults' own."""
        left = START_S + self._lasts_s - self.world.now
        self.world.after(min(self.random.uniform(0.1, longest_s), max(left, 0.0)), heal)

    def _victim(self) -> "object | None":
        alive = [member for member in self.bench.alive if not member.may_end]
        return self.random.choice(alive) if alive else None

    def kill(self) -> None:
        if (member := self._victim()) is not None:
            member.kill()
        self.world.after(self.random.choice([0.0, 1.0, 3.0]), self._start_member)

    def kill_all(self) -> None:
        for member in self.bench.alive:
            member.kill()
        self.world.after(0.5, self._start_member)

    def terminate(self) -> None:
        if (member := self._victim()) is not None:
            member.terminate()
            if self.random.random() < 0.15:
                self.world.after(self.random.uniform(0, 2), lambda: None if member.is_dead else member.terminate())
        self.world.after(self.random.uniform(0, 2), self._start_member)

    def join(self) -> None:
        self._start_member()

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
    def _empty(producer: "object") -> None:
        producer.is_full = False

    def jump_clock(self) -> None:
        if (member := self._victim()) is not None:
            member.clock_shift_ms += self.random.choice([-3_600_000, -5_000, 5_000, 3_600_000])

    def rebalance(self) -> None:
        """Let the coordinator share out everything anew."""
        for member in self.bench.group.members.values():
            if self.random.random() < 0.5:
                member.client.fenced(member.number)
                self.bench.group.expire(member.number)
                return

    def fatal(self) -> None:
        if (member := self._victim()) is not None and member.consumers:
            member.may_end = True
            self.random.choice(member.consumers).become_fatal()
            self.bench.oracle.falls_dumb(member.name)
            self.world.after(3.0, self._start_member)

    def fatal_producer(self) -> None:
        if (member := self._victim()) is not None:
            member.may_end = True
            member.producer.fatal = KafkaError(KafkaError._FATAL)
            self.world.after(3.0, self._start_member)

    # -- the end

    def _heal(self) -> None:
        self.world.note("FAULT", "all is healed")
        self._heal_sink()
        self._quicken_sink()
        self._broker_back()
        self._accept_commits()
        self._give_reports()
        self.bench.sink.refused_apps.clear()
        self.bench.broker.refused_topics.clear()
        for member in self.bench.alive:
            self._empty(member.producer)

    def _come_to_rest(self) -> None:
        """C5: everything is read, settled and committed, and stays so."""
        deadline = self.world.now + REST_S
        looks = 0
        while looks < 3:
            looks = looks + 1 if self._is_at_rest() else 0
            if self.world.now > deadline:
                self.bench.oracle.fail(f"C5 no progress: {self._what_is_left()}")
            alive = self.bench.alive
            if not [member for member in alive if not member.may_end]:
                self.bench.start_member()
            self.world.sleep(0.5)

    def _is_at_rest(self) -> bool:
        return not self._what_is_left()

    def _what_is_left(self) -> str:
        bench = self.bench
        left = []
        for topic in (SOURCE, *bench.plan.read_topics):
            for at in bench.broker.partitions_of(topic):
                commit = bench.group.commits.get(at)
                log = bench.broker.logs[at]
                first = log.low if commit is None else commit.offset
                if any(offset >= first for offset in log.records):
                    left.append(f"{at.topic}[{at.number}] is committed to {first} of {log.high}")
        left += [f"{member.name} stands still" for member in bench.alive if member.stands_still]
        left += [f"{member.name} is not idle" for member in bench.alive if not (member.is_idle or member.may_end)]
        return ", ".join(left)

    def _stop(self) -> None:
        """C7: whoever is told to end, with all well, does so by the deadline and without force."""
        for member in self.bench.alive:
            if member.may_end:  # it may hang in a close, by its fault
                member.kill()
                continue
            member.terminate()
            deadline = self.world.now + self.bench.settings.watchdog_s
            while not member.is_dead and self.world.now < deadline:
                self.world.sleep(0.25)
            if member.exit != "well":
                self.bench.oracle.fail(f"C7 {member.name} ended as {member.exit}")
