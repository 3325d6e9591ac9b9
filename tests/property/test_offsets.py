"""I1: a commit never passes an unsettled record. The tracker against a model that anyone can read."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.offset_map import Run, decode, encode
from consumer.core.offsets import OffsetTracker, UnknownOffsetError


class TrackerMachine(RuleBasedStateMachine):
    """The model keeps every offset ever read and every one settled, and computes the position from scratch."""

    @initialize(start=st.integers(0, 50), lengths=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=4))
    def begin(self, start: int, lengths: list[tuple[int, int]]) -> None:
        done, at = [], start
        for gap, length in lengths:
            done.append(Run(at + gap, at + gap + length))
            at = done[-1].end
        self.earlier = {offset for run in done for offset in range(*run)}
        self.start = start
        self.tracker = OffsetTracker(start, done)
        self.read: list[int] = []
        self.settled: set[int] = set()
        self.highest = start

    @rule(gap=st.integers(0, 3))
    def read_the_next(self, gap: int) -> None:
        offset = (self.read[-1] + 1 if self.read else self.start) + gap
        if offset in self.earlier:
            assert self.tracker.pass_over(offset)
            self.settled.add(offset)
        else:
            assert not self.tracker.pass_over(offset)
            assert self.tracker.track(offset)
        self.read.append(offset)

    @precondition(lambda self: self.read)
    @rule(data=st.data())
    def read_one_again(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(self.read))
        assert not self.tracker.pass_over(offset)
        assert not self.tracker.track(offset)

    @precondition(lambda self: set(self.read) - self.settled)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(set(self.read) - self.settled)))
        before = self.tracker.committable
        assert self.tracker.settle(offset) == (self.position_after(self.settled | {offset}) != before)
        self.settled.add(offset)

    @rule(data=st.data())
    def settle_what_is_not_in_flight(self, data: st.DataObject) -> None:
        in_flight = set(self.read) - self.settled
        offset = data.draw(st.integers(0, 500).filter(lambda at: at not in in_flight))
        with pytest.raises(UnknownOffsetError, match=f"^offset {offset} is not in flight"):
            self.tracker.settle(offset)

    def position_after(self, settled: set[int]) -> int:
        unsettled = [offset for offset in self.read if offset not in settled]
        return min(unsettled) if unsettled else (self.read[-1] + 1 if self.read else self.start)

    @invariant()
    def the_position_is_the_lowest_unsettled(self) -> None:
        assert self.tracker.committable == self.position_after(self.settled)

    @invariant()
    def the_position_never_goes_back(self) -> None:
        assert self.tracker.committable >= self.highest
        self.highest = self.tracker.committable

    @invariant()
    def the_counts_fit(self) -> None:
        assert self.tracker.in_flight == len(set(self.read) - self.settled)
        beyond = [offset for offset in self.settled if offset >= self.tracker.committable]
        assert self.tracker.settled_beyond == len(beyond)
        assert self.tracker.span == self.tracker.next - self.tracker.committable

    @invariant()
    def the_runs_are_what_the_next_owner_may_pass_over(self) -> None:
        runs = self.tracker.settled_runs()
        said = {offset for run in runs for offset in range(*run)}
        unsettled = set(self.read) - self.settled
        known = set(range(self.tracker.committable, self.tracker.next)) - unsettled
        assert said == known | {offset for offset in self.earlier if offset >= self.tracker.next}
        assert all(one.end < other.first for one, other in pairwise(runs)) or self.earlier, "as few as can be"
        text, _ = encode(self.tracker.committable, runs)
        assert decode(text, self.tracker.committable, 10_000).runs == tuple(runs)


TestTracker = TrackerMachine.TestCase


@given(st.permutations(range(30)))
def test_any_order_of_settling_ends_at_the_end(order: list[int]) -> None:
    tracker = OffsetTracker(0)
    for offset in range(30):
        tracker.track(offset)
    for done, offset in enumerate(order, 1):
        tracker.settle(offset)
        assert tracker.committable == min(set(order[done:]), default=30)
    assert tracker.settled_beyond == tracker.in_flight == 0


def test_a_batch_that_never_arrived_is_not_passed() -> None:
    """Excludes a tracker that is seeded from the first record it sees."""
    tracker = OffsetTracker(100)
    assert tracker.committable == 100


def test_one_blocker_holds_a_hundred_thousand() -> None:
    tracker = OffsetTracker(0)
    for offset in range(100_001):
        tracker.track(offset)
    for offset in range(1, 100_001):
        assert not tracker.settle(offset)
    assert (tracker.committable, tracker.settled_beyond, tracker.span) == (0, 100_000, 100_001)
    assert tracker.settled_runs() == [Run(1, 100_001)]
    assert tracker.settle(0)
    assert (tracker.committable, tracker.settled_beyond) == (100_001, 0)


def test_the_next_owner_sends_the_blocker_only() -> None:
    next_owner = OffsetTracker(0, [Run(1, 100_001)])
    sent = [offset for offset in range(100_001) if not next_owner.pass_over(offset) and next_owner.track(offset)]
    assert sent == [0]
    assert next_owner.settled_runs() == [Run(1, 100_001)]
    assert next_owner.settle(0)
    assert next_owner.committable == 100_001
