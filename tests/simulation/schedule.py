"""A schedule: what one seed makes happen to a bench, and how it ends. `play` runs it."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from random import Random

from consumer.core.record import Partition
from consumer.settings import Settings
from tests.simulation.bench import SOURCE, Bench, settings
from tests.simulation.faults import Faults
from tests.simulation.oracle import ViolationError
from tests.simulation.sink import APPS
from tests.simulation.world import START_S, DeadlockError

REST_S = 150.0
"""By when it must have come to rest after everything was healed."""
LOOKS = 3
"""How often in a row, half a second apart, it must have been found at rest."""


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
    bench.oracle.is_ordered = bench.settings.delivery.order == "key"
    schedule = Schedule(bench)
    violation = None
    with bench.seams():
        try:
            schedule.run()
        except (ViolationError, DeadlockError) as error:
            violation = f"{type(error).__name__}: {error}"
        finally:
            try:  # what is cut off here may do something wrong yet
                bench.end()
            except ViolationError as error:
                violation = violation or f"{type(error).__name__}: {error}"
    oracle, world = bench.oracle, bench.world
    return Played(
        seed, violation, world.events, len(oracle.wants), oracle.commits, oracle.sent_twice, oracle.explained,
        schedule.faults.counts, world.now - START_S, world.trace or [],
    )  # fmt: skip


def _settings(seed: int) -> Settings:
    random = Random(f"settings {seed}")
    batch, in_flight = random.choice([(3, 8), (10, 16), (50, 64)])
    connections = random.choice([2, 8])
    span = random.choice([in_flight, in_flight * 2, 1000])
    protocol = random.choice(["classic", "consumer"])
    order, max_per_s = random.choice(["none", "none", "key"]), random.choice([None, None, None, 50.0])
    return settings(batch, in_flight, connections, span, protocol, order, max_per_s)


class Schedule:
    """Members, records and faults, drawn from the world's chance."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._world = bench.world
        self._random = bench.world.random
        self._lasts_s = self._random.uniform(3, 10)
        self.faults = Faults(bench, self._world.now + self._lasts_s)

    def run(self) -> None:
        """Let it all happen, heal it, and see it come to rest.

        Raises:
            ViolationError: what was promised does not hold.
        """
        bench, world, random = self._bench, self._world, self._random
        bench.broker.create_topic(SOURCE, random.randint(1, 3))
        for topic in bench.plan.topics:
            bench.broker.create_topic(topic, 1 if random.random() < 0.7 else 2)
        self._plan_records()
        for _ in range(random.randint(1, 3)):
            world.after(random.uniform(0, 1), self.faults.join)
        for _ in range(random.choice([0, 1, 1, 2, 2, 3, 4, 6])):
            world.after(random.uniform(0.2, self._lasts_s), self.faults.inject)
        world.sleep(self._lasts_s)
        self.faults.heal()
        self._come_to_rest()
        bench.oracle.judge()
        self._stop()
        bench.oracle.judge()

    # -- records

    def _plan_records(self) -> None:
        random = self._random
        partitions = self._bench.broker.partitions_of(SOURCE)
        is_early = random.random() < 0.3
        for number in range(random.randint(15, 60)):
            what = random.choices(["ok", "drop", "bad", "schema1", "schema2"], [90, 4, 3, 2, 1])[0]
            at = 0.0 if is_early else random.uniform(0, self._lasts_s)
            gap = random.randint(1, 3) if random.random() < 0.05 else 0
            value = f"{what} {random.choice(APPS)} e{number}"
            self._world.after(at, partial(self._produce, random.choice(partitions), value, gap))

    def _key_of(self, event_id: str) -> bytes:
        return f"user-{int(event_id[1:]) % 3}".encode() if self._bench.oracle.is_ordered else event_id.encode()

    def _produce(self, partition: Partition, value: str, gap: int) -> None:
        broker = self._bench.broker
        what, _, event_id = value.split()
        headers = (("trace", b"t"),) if self._random.random() < 0.2 else ()
        offset = broker.append(partition, self._key_of(event_id), value.encode(), headers)
        self._bench.oracle.wants[*partition, offset] = "" if what == "drop" else event_id
        if gap:
            broker.logs[partition].skip(gap)

    # -- the end

    def _come_to_rest(self) -> None:
        """C5: everything is read, settled and committed, and stays so."""
        deadline = self._world.now + REST_S
        looks = 0
        while looks < LOOKS:
            left = self._what_is_left()
            looks = 0 if left else looks + 1
            if left and self._world.now > deadline:
                self._bench.oracle.fail(f"C5 no progress: {left}")
            if all(member.may_end for member in self._bench.alive):
                self._bench.start_member()
            self._world.sleep(0.5)

    def _what_is_left(self) -> str:
        bench = self._bench
        left = []
        for topic in (SOURCE, *bench.plan.read_topics):
            for at in bench.broker.partitions_of(topic):
                commit = bench.group.commits.get(at)
                log = bench.broker.logs[at]
                first = log.low if commit is None else commit.offset
                if any(offset >= first for offset in log.records):
                    left.append(f"{at.topic}[{at.number}] is committed to {first} of {log.high}")
        left += [f"{member.name} is ending" for member in bench.alive if member.is_ending]
        left += [f"{member.name} stands still" for member in bench.alive if member.stands_still]
        left += [f"{member.name} is not idle" for member in bench.alive if not (member.is_idle or member.may_end)]
        return ", ".join(left)

    def _stop(self) -> None:
        """C7: whoever is told to end, with all well, does so by the deadline and without force."""
        for member in self._bench.alive:
            if member.may_end:  # its producer can do nothing any more
                member.kill()
                continue
            member.terminate()
            deadline = self._world.now + self._bench.settings.watchdog_s
            while not member.is_dead and self._world.now < deadline:
                self._world.sleep(0.25)
            if member.exit != "well":
                self._bench.oracle.fail(f"C7 {member.name} ended as {member.exit}")
