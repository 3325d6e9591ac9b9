"""I1, I4 and I9 along a chain of owners: what one commits, the next one reads; crashes, fences and late answers.

The tracker, its map and the assignment together against sets of offsets that anyone can check by hand.
"""

from dataclasses import dataclass, field

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.assignment import Assignment, Position
from consumer.core.offset_map import OffsetMap, Run, UnreadableMapError, decode, encode
from consumer.core.record import Partition

PARTITION = Partition("events", 0)
ENDS = ["crash", "crash", "revoke", "revoke", "lose", "lose unknown", "reset", "spoil"]


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
    is_fenced: bool = False

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

    @initialize(gaps=st.lists(st.sampled_from([0, 0, 0, 0, 1, 3]), min_size=10, max_size=40), start=st.integers(0, 3))
    def begin(self, gaps: list[int], start: int) -> None:
        self.log: list[int] = []
        for gap in gaps:
            self.log.append((self.log[-1] + 1 if self.log else start) + gap)
        self.log_end = self.log[-1] + 1
        self.now_s = 1000
        self.epoch = 0
        self.done: set[int] = set()
        self.former: list[Owner] = []
        self.broker = Commit(start, "", frozenset(range(start)))
        self.take_over()

    def take_over(self) -> None:
        """The next owner starts from nothing but what the broker has."""
        offset, text = self.broker.offset, self.broker.metadata
        try:
            before = decode(text, offset, self.log_end)
        except UnreadableMapError:
            before = OffsetMap()
        assert offsets_of(before.runs) == {at for at in self.broker.covered if at >= offset}
        self.epoch += 1
        assignment = Assignment(PARTITION, self.epoch, offset, before)
        self.owner = Owner(assignment, self.broker.covered, offset, before.since_s)
        self.stored: Commit | None = None

    # -- the owner at work

    @rule(count=st.integers(1, 8))
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
        for offset in self.owner.read[-data.draw(st.integers(1, 10)) :]:
            assert not self.owner.assignment.tracker.pass_over(offset)
            assert not self.owner.assignment.tracker.track(offset)

    @precondition(lambda self: self.owner.in_flight)
    @rule(data=st.data(), blockers=st.integers(0, 2))
    def settle(self, data: st.DataObject, blockers: int) -> None:
        order = data.draw(st.permutations(self.owner.in_flight))
        for offset in order[blockers:] or order:
            self.answer(self.owner, offset)

    def answer(self, owner: Owner, offset: int) -> None:
        """The event is delivered, whoever owns the partition now; what moves is the assignment it was asked under."""
        self.done.add(offset)
        before = owner.committable
        owner.settled.add(offset)
        if not owner.is_fenced:
            assert owner.assignment.tracker.settle(offset) == (owner.committable != before)

    @rule(seconds=st.integers(0, 100))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(room=st.sampled_from([None, None, None, 8, 10, 12]), arrives=st.sampled_from([True, True, False]))
    def store(self, room: int | None, arrives: bool) -> None:
        """With little *room* the highest runs are left out of the map. Only what *arrives* survives a crash."""
        self.stored = self.position_of(self.owner, room)
        if arrives:
            self.broker = self.stored

    def position_of(self, owner: Owner, room: int | None = None) -> Commit:
        position = owner.assignment.position(self.now_s)
        assert position == Position(owner.assignment, owner.committable, position.metadata)
        if owner.committable != owner.stands_at or owner.since_s == 0:
            owner.stands_at, owner.since_s = owner.committable, self.now_s
        text = position.metadata
        beyond = owner.beyond
        if text:
            assert decode(text, position.offset, self.log_end).since_s == owner.since_s
        if room is not None:
            text, count = encode(position.offset, owner.assignment.tracker.settled_runs(), max_chars=5 + room)
            beyond = set(sorted(beyond)[:count])
        assert offsets_of(decode(text, position.offset, self.log_end).runs) == beyond
        return Commit(position.offset, text, frozenset(range(position.offset)) | beyond)

    # -- the end of an assignment

    @rule(how=st.sampled_from(ENDS), data=st.data(), one_by_one=st.booleans())
    def a_whole_life(self, how: str, data: st.DataObject, one_by_one: bool) -> None:
        """Much in one step, so that chains get long: hypothesis likes to leave out rules."""
        for count in (1, 2, 3) if one_by_one else (8,):
            self.read(count)
            if self.owner.in_flight:
                self.settle(data, 0 if count == 1 else 1)
            self.every_assignment_is_as_its_model()
        self.read_one_again(data)
        self.store(None, arrives=True)
        self.end(how, data)

    @precondition(lambda self: self.owner.settled)
    @rule(how=st.sampled_from(ENDS), data=st.data())
    def end(self, how: str, data: st.DataObject) -> None:
        owner = self.owner
        match how:
            case "revoke":
                # in one step; it is committed before the next owner asks
                owner.is_fenced = True
                assert owner.assignment.fence() == len(owner.in_flight)
                self.broker = self.position_of(owner)
                self.former.append(owner)
            case "lose":
                owner.is_fenced = True
                assert owner.assignment.fence() == len(owner.in_flight)
                self.former.append(owner)
            case "lose unknown":  # it still moves, but only itself
                self.former.append(owner)
            case "reset":
                self.reset(data.draw(st.integers(0, self.broker.offset)))
            case "spoil" if self.broker.metadata:
                self.spoil(data)
        self.take_over()

    def reset(self, offset: int) -> None:
        """An operator sets the position back on purpose; Kafka's tool writes no metadata."""
        self.broker = Commit(offset, "", frozenset(range(offset)))

    def spoil(self, data: st.DataObject) -> None:
        """A map that is cut, of another position or of another program covers nothing."""
        text, offset = self.broker.metadata, self.broker.offset
        cut = text[: data.draw(st.integers(0, len(text) - 1))]
        other, _ = encode(offset + 1, [Run(offset + 3, offset + 5)])
        spoilt = data.draw(st.sampled_from([cut, other, "node-17", text.replace("1", "2", 1)]))
        self.broker = Commit(offset, spoilt, frozenset(range(offset)))

    @precondition(lambda self: any(owner.in_flight for owner in self.former))
    @rule(data=st.data())
    def late_answer(self, data: st.DataObject) -> None:
        """I4."""
        owner = data.draw(st.sampled_from([owner for owner in self.former if owner.in_flight]))
        stood = owner.assignment.tracker.committable
        self.answer(owner, data.draw(st.sampled_from(owner.in_flight)))
        assert not owner.is_fenced or owner.assignment.tracker.committable == stood

    # -- what always holds

    @invariant()
    def no_commit_passes_an_unsettled_record(self) -> None:
        """I1."""
        for commit in (self.broker, self.stored):
            if commit is not None:
                assert {offset for offset in self.log if offset in commit.covered} <= self.done

    @invariant()
    def no_owner_goes_back(self) -> None:
        assert self.owner.assignment.tracker.committable >= self.broker.offset

    @invariant()
    def every_assignment_is_as_its_model(self) -> None:
        for owner in (self.owner, *self.former):
            assignment, tracker = owner.assignment, owner.assignment.tracker
            if not owner.is_fenced:
                assert tracker.committable == owner.committable
                assert tracker.in_flight == len(owner.in_flight)
                assert offsets_of(tracker.settled_runs()) == owner.beyond
            assert assignment.leaving is assignment.fenced is owner.is_fenced

    def teardown(self) -> None:
        """Undisturbed, the last owner comes to the end of the log, and nothing is left to say."""
        if hasattr(self, "owner"):
            self.read(len(self.log))
            for offset in self.owner.in_flight:
                self.answer(self.owner, offset)
            last = self.position_of(self.owner)
            assert (last.offset, last.metadata) == (max(self.log_end, self.owner.assignment.start), "")
            assert self.done == set(self.log)


TestOwners = Owners.TestCase
TestOwners.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
