"""I1, I4 and I9 along a chain of owners: what one commits, the next one reads; crashes, fences, late answers in between.

The tracker, its map and the assignment together against sets of offsets that anyone can check by hand.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.assignment import Assignment, Position
from consumer.core.offset_map import OffsetMap, Run, UnreadableMapError, decode, encode
from consumer.core.offsets import OffsetTracker
from consumer.core.record import Partition

PARTITION = Partition("events", 0)


def offsets_of(runs: tuple[Run, ...] | list[Run]) -> set[int]:
    return {offset for run in runs for offset in range(run.first, run.end)}


@dataclass(frozen=True)
class Commit:
    """What stands at the broker. `covered` is the model's: what an owner that reads it must not send again."""

    offset: int
    metadata: str
    covered: frozenset[int]


@dataclass
class Owner:
    """One assignment, and the model of it: what it read and what of that is settled."""

    assignment: Assignment
    covered: frozenset[int]
    stands_at: int
    since_s: int
    read: list[int] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)

    @property
    def in_flight(self) -> list[int]:
        return sorted(set(self.read) - self.settled)

    @property
    def next(self) -> int:
        return self.read[-1] + 1 if self.read else self.assignment.start

    @property
    def committable(self) -> int:
        return min(self.in_flight, default=self.next)

    @property
    def beyond(self) -> set[int]:
        """Offsets from the position on that need not be read again; those that the log skips among them."""
        passed = set(range(self.committable, self.next)) - set(self.in_flight)
        return passed | {offset for offset in self.covered if offset >= self.next}


class Owners(RuleBasedStateMachine):
    """One partition of a log with gaps, in the hands of one owner after another."""

    @initialize(gaps=st.lists(st.sampled_from([0, 0, 0, 0, 1, 3]), min_size=5, max_size=30), start=st.integers(0, 3))
    def begin(self, gaps: list[int], start: int) -> None:
        self.log: list[int] = []
        for gap in gaps:
            self.log.append((self.log[-1] + 1 if self.log else start) + gap)
        self.end = self.log[-1] + 1
        self.now_s = 1000
        self.epoch = 0
        self.done: set[int] = set()
        self.former: list[Owner] = []
        self.highest = 0
        self.broker = Commit(start, "", frozenset(range(start)))
        self.take_over()

    def take_over(self) -> None:
        """The next owner starts from nothing but what the broker has."""
        offset, text = self.broker.offset, self.broker.metadata
        try:
            before = decode(text, offset, self.end)
        except UnreadableMapError:
            before = OffsetMap()
        assert offsets_of(before.runs) == {at for at in self.broker.covered if at >= offset}
        self.epoch += 1
        assignment = Assignment(PARTITION, self.epoch, offset, before)
        self.owner = Owner(assignment, self.broker.covered, offset, before.since_s)
        self.stored: Commit | None = None

    # -- the owner at work

    @rule(count=st.integers(1, 6))
    def read(self, count: int) -> None:
        owner, tracker = self.owner, self.owner.assignment.tracker
        for offset in [at for at in self.log if at >= owner.next][:count]:
            if offset in owner.covered:
                assert tracker.pass_over(offset), "I9: it was committed as done"
                owner.settled.add(offset)
            else:
                assert not tracker.pass_over(offset)
                assert tracker.track(offset)
            owner.read.append(offset)

    @precondition(lambda self: self.owner.read)
    @rule(data=st.data())
    def read_one_again(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(self.owner.read))
        assert not self.owner.assignment.tracker.pass_over(offset)
        assert not self.owner.assignment.tracker.track(offset)

    @precondition(lambda self: self.owner.in_flight)
    @rule(data=st.data(), count=st.integers(1, 4))
    def settle(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.owner.in_flight))):
            self.answer(self.owner, data.draw(st.sampled_from(self.owner.in_flight)))

    def answer(self, owner: Owner, offset: int) -> None:
        """The event is delivered, whoever owns the partition now; what moves is the assignment it was asked under."""
        self.done.add(offset)
        before = owner.committable
        owner.settled.add(offset)
        if not owner.assignment.fenced:
            assert owner.assignment.tracker.settle(offset) == (owner.committable != before)

    @rule(seconds=st.integers(0, 100))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(room=st.none() | st.integers(0, 30))
    def store(self, room: int | None) -> None:
        """With little *room* the highest runs are left out of the map."""
        self.stored = self.position_of(self.owner, room)

    @precondition(lambda self: self.stored is not None)
    @rule()
    def commit(self) -> None:
        assert self.stored is not None
        self.broker = self.stored

    def position_of(self, owner: Owner, room: int | None = None) -> Commit:
        position = owner.assignment.position(self.now_s)
        assert position == Position(owner.assignment, owner.committable, position.metadata)
        if owner.committable != owner.stands_at or owner.since_s == 0:
            owner.stands_at, owner.since_s = owner.committable, self.now_s
        text = position.metadata
        beyond = owner.beyond
        if text:
            assert decode(text, position.offset, self.end).since_s == owner.since_s
        if room is not None:
            text, count = encode(position.offset, owner.assignment.tracker.settled_runs(), max_chars=5 + room)
            beyond = set(sorted(beyond)[:count])
        assert offsets_of(decode(text, position.offset, self.end).runs) == beyond
        return Commit(position.offset, text, frozenset(range(position.offset)) | beyond)

    # -- the end of an assignment

    @rule()
    def crash(self) -> None:
        self.take_over()

    @rule()
    def revoke(self) -> None:
        """Fence and take the position in one step; it is committed before the next owner asks."""
        assert self.owner.assignment.fence() == len(self.owner.in_flight)
        self.broker = self.position_of(self.owner)
        self.former.append(self.owner)
        self.take_over()

    @rule(knows=st.booleans())
    def lose(self, knows: bool) -> None:
        """Nothing is stored. A former owner that doesn't know yet still moves, but only itself."""
        if knows:
            self.owner.assignment.fence()
        self.former.append(self.owner)
        self.take_over()

    @precondition(lambda self: any(owner.in_flight for owner in self.former))
    @rule(data=st.data())
    def late_answer(self, data: st.DataObject) -> None:
        """I4."""
        owner = data.draw(st.sampled_from([owner for owner in self.former if owner.in_flight]))
        stood = owner.assignment.tracker.committable
        self.answer(owner, data.draw(st.sampled_from(owner.in_flight)))
        assert not owner.assignment.fenced or owner.assignment.tracker.committable == stood

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        """An operator sets the position back on purpose; Kafka's tool writes no metadata."""
        offset = data.draw(st.integers(self.log[0], self.broker.offset)) if self.broker.offset > self.log[0] else 0
        self.broker = Commit(offset, "", frozenset(range(offset)))
        self.highest = 0
        self.take_over()

    @precondition(lambda self: self.broker.metadata)
    @rule(data=st.data())
    def spoil(self, data: st.DataObject) -> None:
        """A map that is cut, of another position or of another program covers nothing."""
        text, offset = self.broker.metadata, self.broker.offset
        cut = text[: data.draw(st.integers(0, len(text) - 1))]
        other, _ = encode(offset + 1, [Run(offset + 3, offset + 5)])
        spoilt = data.draw(st.sampled_from([cut, other, "node-17", text.replace("1", "2", 1)]))
        self.broker = Commit(offset, spoilt, frozenset(range(offset)))
        self.take_over()

    # -- what always holds

    @invariant()
    def no_commit_passes_an_unsettled_record(self) -> None:
        """I1."""
        for commit in (self.broker, self.stored):
            if commit is not None:
                assert {offset for offset in self.log if offset in commit.covered} <= self.done

    @invariant()
    def no_owner_goes_back(self) -> None:
        assert self.owner.assignment.tracker.committable >= max(self.broker.offset, self.highest)
        self.highest = self.broker.offset

    @invariant()
    def every_assignment_is_as_its_model(self) -> None:
        for owner in (self.owner, *self.former):
            assignment, tracker = owner.assignment, owner.assignment.tracker
            if not assignment.fenced:
                assert tracker.committable == owner.committable
                assert tracker.in_flight == len(owner.in_flight)
                assert offsets_of(tracker.settled_runs()) == owner.beyond
            assert assignment.leaving == assignment.fenced

    def teardown(self) -> None:
        """Undisturbed, the last owner comes to the end of the log; each event is delivered, and nothing is left to say."""
        if hasattr(self, "owner"):
            self.read(len(self.log))
            for offset in self.owner.in_flight:
                self.answer(self.owner, offset)
            last = self.position_of(self.owner)
            assert (last.offset, last.metadata) == (max(self.end, self.owner.assignment.start), "")
            assert self.done == set(self.log)


TestOwners = Owners.TestCase
TestOwners.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
