"""The way of a failing record over our own topics: bounded hops, no try too early, no circle, and an end for each.

Plan, headers and parking work together here as they do in the process; the topics are lists, the clock a number.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consumer.core.headers import Hop, read_hop, write_hop
from consumer.core.parking import Parked, Parking
from consumer.core.record import Partition, Record
from consumer.core.retry import RetryPlan

LABELS = {"30s": 30, "2m": 120, "5m": 300, "1h": 3600}
SOURCE, HELD, DEAD = "events", "e.held", "e.dead-letter"
waits = st.sampled_from([0, 1, 30, 31, 120, 299, 300, 4000])


@dataclass
class Trip:
    """The model of one record: the labels of the tiers it failed into, and where it ended."""

    failed_into: list[str] = field(default_factory=list)
    due_ms: int = 0
    sweeps: list[int] = field(default_factory=list)
    """The numbers of the sweeps that read it."""
    end: str = ""


def delay_ms_of(topic: str) -> int:
    return LABELS[topic.rpartition(".")[2]] * 1000


class Schedule(RuleBasedStateMachine):
    """One partition of each topic. `waiting` and `sweep_end` are the model of the parking."""

    @initialize(labels=st.lists(st.sampled_from(sorted(LABELS)), unique=True))
    def begin(self, labels: list[str]) -> None:
        self.labels = labels
        self.plan = RetryPlan.of("e", tuple(labels))
        self.parking = Parking(self.plan)
        self.ahead_ms: dict[str, int] = {}
        self.now_ms = 1_700_000_000_000
        self.logs: dict[str, list[Record | None]] = {topic: [] for topic in self.plan.topics}
        self.next = dict.fromkeys(self.plan.read_topics, 0)
        self.waiting: dict[str, Parked] = {}
        self.sweep_end: int | None = None
        self.sweep_number = 0
        self.trips: list[Trip] = []
        self.park(HELD, Parked(0, None))

    def park(self, topic: str, parked: Parked) -> None:
        self.parking.park(Partition(topic, 0), parked)
        self.waiting[topic] = parked

    # -- tries and what becomes of them

    @rule(fate=st.sampled_from(["ok", "fail", "hold", "aside"]), wait_s=waits)
    def arrive(self, fate: str, wait_s: int) -> None:
        record = Record(SOURCE, 0, len(self.trips), 0, None, b"v")
        self.trips.append(Trip())
        assert self.parking.place(record, self.now_ms) is None, "a source record never waits"
        self.attempt(record, fate, wait_s)

    def attempt(self, record: Record, fate: str, wait_s: int) -> None:
        hop = read_hop(record, is_ours=record.topic != SOURCE)
        trip = self.trips[hop.offset]
        assert not trip.end
        assert hop.tier == (trip.failed_into[-1] if trip.failed_into else None), "a stay elsewhere changes nothing"
        match fate:
            case "ok":
                trip.end = "delivered"
            case "hold":
                self.forward(record, HELD, hop._replace(not_before_ms=0))
            case "aside" if self.labels:
                again = trip.failed_into[-1:] or sorted(self.labels, key=LABELS.__getitem__)[:1]
                tier = self.plan.same_tier(hop.tier)
                assert [tier.label] == again
                trip.failed_into = trip.failed_into or again  # where it has passed none, it passes the first
                self.wait_on(record, hop, tier.label)
            case _:
                self.fail(record, hop, wait_s)

    def fail(self, record: Record, hop: Hop, wait_s: int) -> None:
        trip = self.trips[hop.offset]
        longest = max((LABELS[label] for label in trip.failed_into), default=0)
        left = sorted(LABELS[label] for label in self.labels if LABELS[label] > longest)
        long_enough = [delay_s for delay_s in left if delay_s >= wait_s]
        tier = self.plan.next_tier(hop.tier, wait_s)
        if not left:
            assert tier is None
            trip.end = "dead"
            self.forward(record, DEAD, hop)
            return
        assert tier is not None
        assert tier.delay_s == (min(long_enough) if long_enough else max(left))
        trip.failed_into.append(tier.label)
        self.wait_on(record, hop, tier.label)

    def wait_on(self, record: Record, hop: Hop, label: str) -> None:
        due_ms = self.now_ms + LABELS[label] * 1000
        self.trips[hop.offset].due_ms = due_ms
        self.forward(record, f"e.retry.{label}", hop._replace(tier=label, not_before_ms=due_ms))

    def forward(self, record: Record, topic: str, hop: Hop) -> None:
        headers = write_hop(record.headers, hop, stage="deliver", reason="r", status=None)
        log = self.logs[topic]
        log.append(Record(topic, 0, len(log), self.now_ms, record.key, record.value, headers))

    # -- the source

    @rule(data=st.data(), fate=st.sampled_from(["ok", "fail", "fail", "hold", "hold", "aside"]), wait_s=waits)
    def read(self, data: st.DataObject, fate: str, wait_s: int) -> None:
        self.read_one(data.draw(st.sampled_from(self.plan.read_topics)), fate, wait_s)

    def read_one(self, topic: str, fate: str, wait_s: int = 0) -> bool:
        """Take the next record of *topic*, as the Kafka thread does, unless its partition waits."""
        log = self.logs[topic]
        while self.next[topic] < len(log) and log[self.next[topic]] is None:
            self.next[topic] += 1  # gone from the log
        if topic in self.waiting or self.next[topic] == len(log):
            return False
        record = log[self.next[topic]]
        assert record is not None
        placed = self.parking.place(record, self.now_ms)
        assert placed == (self.held_place(record) if topic == HELD else self.tier_place(record))
        if placed is not None:
            self.park(topic, placed)
            return False
        self.next[topic] += 1
        trip = self.trips[read_hop(record, is_ours=True).offset]
        if topic == HELD:
            assert self.sweep_number not in trip.sweeps, "held again is not read in a circle"
            trip.sweeps.append(self.sweep_number)
        self.attempt(record, fate, wait_s)
        is_over = topic == HELD and self.sweep_end is not None and self.next[topic] >= self.sweep_end
        assert self.parking.sweep_is_over(Partition(topic, 0), self.next[topic]) == is_over
        if is_over:
            self.sweep_end = None
            self.park(topic, Parked(self.next[topic], None))
        return True

    def tier_place(self, record: Record) -> Parked | None:
        """No longer than the tier's delay; and who waited for a clock that was ahead waits for it no second time."""
        due_ms = self.trips[read_hop(record, is_ours=True).offset].due_ms
        latest_ms = self.now_ms + delay_ms_of(record.topic)
        if due_ms > latest_ms:
            self.ahead_ms[record.topic] = max(self.ahead_ms.get(record.topic, 0), due_ms - latest_ms)
            due_ms -= self.ahead_ms[record.topic]
        return Parked(record.offset, due_ms) if due_ms > self.now_ms else None

    def held_place(self, record: Record) -> Parked | None:
        if self.sweep_end is not None and record.offset < self.sweep_end:
            return None
        self.sweep_end = None
        return Parked(record.offset, None)

    @rule(seconds=st.sampled_from([-3600, -1, 1, 29, 30, 300, 3600]))
    def time_passes(self, seconds: int) -> None:
        """The wall clock, so it can go back."""
        self.now_ms += seconds * 1000
        due = {
            topic
            for topic, at in self.waiting.items()
            if at.until_ms is not None and not 0 < at.until_ms - self.now_ms <= delay_ms_of(topic)
        }
        assert {partition.topic for partition in self.parking.due(self.now_ms)} == due
        for topic in due:
            del self.waiting[topic]

    @rule()
    def sweep(self) -> None:
        end = len(self.logs[HELD])
        starts = self.sweep_end is None and HELD in self.waiting and self.waiting[HELD].offset < end
        assert self.parking.sweep(Partition(HELD, 0), end=end) == starts
        if starts:
            del self.waiting[HELD]
            self.sweep_number += 1
            self.sweep_end = end
        elif self.sweep_end is not None:
            self.sweep_number += 1  # from here on it goes on to the new end
            self.sweep_end = max(self.sweep_end, end)

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """Another assignment of a partition; nothing of the old one counts."""
        topic = data.draw(st.sampled_from(self.plan.read_topics))
        self.parking.forget(Partition(topic, 0))
        self.waiting.pop(topic, None)
        self.ahead_ms.pop(topic, None)
        if topic == HELD:
            self.sweep_end = None
            self.park(HELD, Parked(self.next[HELD], None))

    @rule(data=st.data())
    def lose_a_record(self, data: st.DataObject) -> None:
        self.lose_next(data.draw(st.sampled_from(self.plan.read_topics)))

    def lose_next(self, topic: str) -> None:
        """Retention takes the next record of *topic* before it is read."""
        record = self.logs[topic][self.next[topic]] if self.next[topic] < len(self.logs[topic]) else None
        if record is not None:
            self.trips[read_hop(record, is_ours=True).offset].end = "gone"
            self.logs[topic][self.next[topic]] = None

    @rule()
    def a_sweep_loses_its_last_record(self) -> None:
        """What is held meanwhile must not be taken for it."""
        self.arrive("hold", 0)
        self.sweep()
        while self.next[HELD] < len(self.logs[HELD]) - 1 and self.read_one(HELD, "ok"):
            pass
        self.lose_next(HELD)
        self.arrive("hold", 0)
        self.read_one(HELD, "ok")
        self.sweep()
        self.read_one(HELD, "ok")

    @rule(fates=st.lists(st.sampled_from(["ok", "fail", "hold", "aside"]), min_size=3, max_size=3), back=st.booleans())
    def much_at_once(self, fates: list[str], back: bool) -> None:
        """Chains get long by it: hypothesis likes to leave out rules."""
        for fate in ("hold", "hold", "fail", "fail"):
            self.arrive(fate, 0)
        if back:
            self.time_passes(-3600)
        for topic in self.plan.read_topics:
            self.sweep()
            self.read_one(topic, "hold")
            self.sweep()
            for fate in fates:
                self.read_one(topic, fate)
        self.time_passes(min((LABELS[label] for label in self.labels), default=300))  # to the very moment

    # -- what always holds

    @invariant()
    def each_tier_is_passed_at_most_once(self) -> None:
        for trip in self.trips:
            delays = [LABELS[label] for label in trip.failed_into]
            assert delays == sorted(set(delays)), "in order of delay, none twice"
            assert len(delays) <= len(self.labels)

    @invariant()
    def what_waits_is_what_the_model_says(self) -> None:
        assert self.parking.parked == {Partition(topic, 0): parked for topic, parked in self.waiting.items()}
        held = self.waiting.get(HELD)
        assert self.parking.held_position(Partition(HELD, 0)) == (None if held is None else held.offset)

    def teardown(self) -> None:
        """However it failed before, with time and sweeps each record comes to an end."""
        if hasattr(self, "trips"):
            latest_ms = max((trip.due_ms for trip in self.trips), default=0)
            self.time_passes(3600 + max(0, latest_ms - self.now_ms) // 1000)
            for topic in self.plan.read_topics:
                self.sweep()
                while self.read_one(topic, "ok"):
                    pass
            assert all(trip.end for trip in self.trips)


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


@given(st.lists(st.tuples(st.lists(st.sampled_from(sorted(LABELS)), unique=True, min_size=1), waits), max_size=12))
def test_no_delay_is_passed_twice_though_the_tiers_change(hops: list[tuple[list[str], int]]) -> None:
    """Excludes: a label of an earlier configuration that counts for nothing, so that a record begins anew."""
    passed: list[str] = []
    for labels, wait_s in hops:
        tier = RetryPlan.of("e", tuple(labels)).next_tier(passed[-1] if passed else None, wait_s)
        if tier is not None:
            passed.append(tier.label)
    delays = [LABELS[label] for label in passed]
    assert delays == sorted(set(delays))
