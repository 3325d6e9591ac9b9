"""`delivery.order = "key"`: one record of a key at a time, in the order they were read; nobody is forgotten."""

from collections.abc import Iterable

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.core.assignment import Assignment
from consumer.core.offset_map import OffsetMap
from consumer.core.record import Partition, Record
from consumer.envelope import Envelope
from consumer.key_order import KeyOrder

KEYS = [b"a", b"b", None]


class Abandoned:
    """Stands for the settlement, of which only this is used."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    def abandon(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)


class KeyOrderMachine(RuleBasedStateMachine):
    """The model: for each assignment and key, all that was read of it and has not ended, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.abandoned = Abandoned()
        self.begun: list[Envelope] = []
        self.order = KeyOrder(settlement=self.abandoned, requeue=self.offered_again)  # type: ignore[arg-type]
        self.epoch = 0
        self.lines: dict[tuple[Assignment, bytes | None], list[Envelope]] = {}
        self.assignments = [self.new_assignment(number) for number in (0, 1)]

    def new_assignment(self, number: int) -> Assignment:
        self.epoch += 1
        return Assignment(Partition("events", number), self.epoch, 0, OffsetMap())

    def offered_again(self, envelopes: Iterable[Envelope]) -> None:
        """As the pipeline does, and without asking: it must be its turn."""
        for envelope in envelopes:
            assert self.order.enter(envelope), "who was called has its turn"
            self.begun.append(envelope)

    @rule(number=st.integers(0, 1), key=st.sampled_from(KEYS))
    def read(self, number: int, key: bytes | None) -> None:
        assignment = self.assignments[number]
        if assignment.leaving:
            return
        line = self.lines.setdefault((assignment, key), [])
        record = Record("events", number, assignment.tracker.next, 0, key, b"", ())
        assignment.tracker.track(record.offset)
        envelope = Envelope(record, assignment, is_ours=False, taken_at=0.0)
        is_first = self.order.enter(envelope)
        assert is_first == (key is None or not line)
        if is_first:
            self.begun.append(envelope)
        line.append(envelope)

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def one_is_offered_again(self, data: st.DataObject) -> None:
        """It waited for its lane, for the breaker, or for a schema: its turn is still its own."""
        assert self.order.enter(data.draw(st.sampled_from(self.begun)))

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        envelope = data.draw(st.sampled_from(self.begun))
        self.begun.remove(envelope)
        line = self.lines[envelope.assignment, envelope.record.key]
        if envelope.record.key is not None:
            assert line[0] is envelope, "in the order they were read"
        line.remove(envelope)
        before = len(self.begun)
        if envelope.turn_over is not None:
            envelope.turn_over(envelope)
        assert self.begun[before:] == (line[:1] if envelope.record.key is not None else [])

    @rule(number=st.integers(0, 1))
    def an_assignment_begins_to_leave(self, number: int) -> None:
        """Who waits is abandoned; what has begun ends as it likes."""
        assignment = self.assignments[number]
        if assignment.leaving:
            return
        assignment.leaving = True
        self.abandoned.envelopes.clear()
        self.order.leave({assignment})
        waiting = []
        for (owner, _), line in self.lines.items():
            if owner is assignment:
                waiting += [envelope for envelope in line if envelope not in self.begun]
                line[:] = [envelope for envelope in line if envelope in self.begun]
        assert sorted(one.record.offset for one in self.abandoned.envelopes) == sorted(
            one.record.offset for one in waiting
        )

    @rule(number=st.integers(0, 1))
    def an_assignment_is_fenced(self, number: int) -> None:
        """Late ends of the old epoch are told to nobody, as the settlement does it; the next one begins afresh."""
        assignment = self.assignments[number]
        self.an_assignment_begins_to_leave(number)
        self.order.end({assignment})
        self.begun = [envelope for envelope in self.begun if envelope.assignment is not assignment]
        self.lines = {at: line for at, line in self.lines.items() if at[0] is not assignment}
        self.assignments[number] = self.new_assignment(number)

    @invariant()
    def one_of_each_key_has_begun(self) -> None:
        for (_, key), line in self.lines.items():
            begun = [envelope for envelope in line if envelope in self.begun]
            assert begun == (line[:1] if key is not None else line)

    @invariant()
    def it_remembers_only_keys_in_hand(self) -> None:
        kept = {(assignment, key) for assignment, keys in self.order._keys.items() for key in keys}
        assert kept == {at for at, line in self.lines.items() if line and at[1] is not None}


TestKeyOrder = KeyOrderMachine.TestCase
TestKeyOrder.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
