"""I1 to I4 while assignments come and go: the real pipeline on the bench, answers and acknowledgements in any order.

The model notes what the outside world has seen (a good answer, a broker's acknowledgement) and computes from that alone
what may be committed. Each record says which assignment it was read under, so a late answer is known as one.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.assignment import Assignment
from consumer.core.breaker import BreakerPolicy
from consumer.core.offset_map import decode
from consumer.core.outcome import Answer, Fault
from consumer.core.record import Partition
from consumer.settlement import Positions
from tests.support.rig import OK, ManualLoop, Rig

ANSWERS = [OK, OK, OK, Answer(400), Answer(503), Answer(200, b"what"), Fault.RESET]


@dataclass
class Epoch:
    """The model of one assignment."""

    assignment: Assignment
    before: frozenset[int]
    read: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    fenced_at: int | None = None

    @property
    def committable(self) -> int:
        start = self.assignment.start
        return min(self.read - self.ended, default=max(self.read, default=start - 1) + 1)


class StrictRig(Rig):
    """Keeps what was published, and for whom."""

    def _publish(self, positions: Positions) -> None:
        for assignment, offset, metadata in positions:
            assert not assignment.fenced, "I4: a position of an assignment that is over"
            self.committed[assignment.partition] = (offset, metadata)

    committed: dict[Partition, tuple[int, str]]


class LifeCycle(RuleBasedStateMachine):
    """Two partitions of one process, taken away and given back."""

    @initialize(connections=st.sampled_from([1, 3, 100]))
    def begin(self, connections: int) -> None:
        self.loop = ManualLoop()
        self.rig = StrictRig(self.loop, connections=connections, breaker=BreakerPolicy(min_answers=10_000))
        self.rig.committed = {}
        self.durable: dict[int, set[int]] = {0: set(), 1: set()}
        self.owned: dict[int, Epoch] = {}
        self.epochs: dict[int, Epoch] = {}
        self.drains: list[tuple[int, asyncio.Task[Positions]]] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        result = self.loop.run_until_complete(work)
        self.collect()
        return result

    def collect(self) -> None:
        """The broker's side of a revoke: what the drain gave is stored before the partition changes hands."""
        for number, drain in [*self.drains]:
            if drain.done():
                self.drains.remove((number, drain))
                for position in drain.result():  # none if it was lost meanwhile
                    epoch = self.owned.pop(number)
                    assert position.offset == epoch.committable, "the position of the very moment"
                    self.rig.committed[position.assignment.partition] = (position.offset, position.metadata)
                    self.over(epoch)

    def over(self, epoch: Epoch) -> None:
        epoch.fenced_at = epoch.assignment.tracker.committable
        assert epoch.assignment.fenced

    def committed(self, number: int) -> tuple[int, str]:
        return self.rig.committed.get(Partition("events", number), (0, ""))

    # -- assignments

    @rule(number=st.integers(0, 1))
    def assign(self, number: int) -> None:
        if number in self.owned:
            return
        offset, metadata = self.committed(number)
        before = decode(metadata, offset, 10_000)
        assignment = self.rig.assign("events", number, offset, before)
        covered = frozenset(at for run in before.runs for at in range(*run))
        self.owned[number] = self.epochs[assignment.epoch] = Epoch(assignment, covered)

    @precondition(lambda self: self.owned)
    @rule(data=st.data(), kinds=st.lists(st.sampled_from(["game", "game", "game", "bad"]), max_size=5))
    def read(self, data: st.DataObject, kinds: list[str]) -> None:
        self.read_of(data.draw(st.sampled_from(sorted(self.owned))), kinds)

    def read_of(self, number: int, kinds: list[str]) -> None:
        epoch, assignment = self.owned[number], self.owned[number].assignment
        first = assignment.tracker.next
        values = [f"{kind}:{assignment.epoch}:{first + index}" for index, kind in enumerate(kinds)]

        async def arrive() -> None:
            self.rig.read(assignment, *values)

        if not assignment.leaving:
            for offset in range(first, first + len(kinds)):
                epoch.read.add(offset)
                if offset in epoch.before:
                    epoch.ended.add(offset)
        self.run(arrive())
        self.run(self.rig.settle())

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.lose_now(data.draw(st.sampled_from(sorted(self.owned))))

    def lose_now(self, number: int) -> None:
        """Lost, perhaps while it is being revoked: then the drain has nothing more to give."""
        epoch = self.owned.pop(number)

        async def fence() -> None:
            self.rig.pipeline.fence([epoch.assignment], reason="lost")

        self.run(fence())
        self.over(epoch)

    @precondition(lambda self: self.owned)
    @rule(data=st.data(), timeout_s=st.sampled_from([0.0, 1.0, 25.0]))
    def revoke(self, data: st.DataObject, timeout_s: float) -> None:
        number = data.draw(st.sampled_from(sorted(self.owned)))
        if not self.is_draining(number):
            self.drain(number, timeout_s)

    def is_draining(self, number: int) -> bool:
        return any(draining == number for draining, _ in self.drains)

    def drain(self, number: int, timeout_s: float) -> None:
        drain = self.rig.pipeline.drain([self.owned[number].assignment], timeout_s=timeout_s, reason="revoked")
        self.drains.append((number, self.loop.create_task(drain)))
        self.run(self.rig.settle())

    @rule(data=st.data(), how=st.sampled_from(["revoke", "lose", "stay"]), number=st.integers(0, 1))
    def a_whole_life(self, data: st.DataObject, how: str, number: int) -> None:
        """Much in one step, so that chains get long: hypothesis likes to leave out rules."""
        self.assign(number)
        self.read_of(number, ["game", "game", "game", "bad"])
        for _ in range(2):
            if self.rig.transport.waiting:
                self.answer(data, OK)
        if self.rig.forwarder.waiting:
            self.acknowledge("away")
        self.positions_are_those_of_the_model()
        if how != "stay" and number in self.owned and not self.is_draining(number):
            if how == "lose":
                self.lose_now(number)
            else:
                self.drain(number, 25.0)
                if self.rig.transport.waiting:
                    self.answer(data, OK)
                self.time_passes(30.0)
        self.assign(number)

    # -- the outside world

    def saw(self, value: str) -> None:
        """Note that the event with *value* is done for good, whoever may note it."""
        _, epoch_number, offset = value.split(":")
        epoch = self.epochs[int(epoch_number)]
        self.durable[epoch.assignment.partition.number].add(int(offset))
        if epoch.fenced_at is None:
            epoch.ended.add(int(offset))

    @precondition(lambda self: self.rig.transport.waiting)
    @rule(data=st.data(), answer=st.sampled_from(ANSWERS))
    def answer(self, data: st.DataObject, answer: Answer | Fault) -> None:
        value = data.draw(
            st.sampled_from(sorted(request.body.decode() for request, _, _ in self.rig.transport.waiting))
        )
        if answer is OK:
            self.saw(value)
        self.run(self.rig.answer(answer, which=value))

    @precondition(lambda self: self.rig.forwarder.waiting)
    @rule(problem=st.sampled_from([None, None, "away"]))
    def acknowledge(self, problem: str | None) -> None:
        if problem is None:
            for _, record, _, _ in self.rig.forwarder.waiting:
                self.saw((record.value or b"").decode())
        self.run(self.rig.acknowledge(problem))

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.rig.advance(seconds))

    # -- what always holds

    @invariant()
    def positions_are_those_of_the_model(self) -> None:
        """I1 and I2: computed from what the outside world has seen."""
        for epoch in self.epochs.values():
            tracker = epoch.assignment.tracker
            if epoch.fenced_at is not None:
                assert tracker.committable == epoch.fenced_at, "I4"
            else:
                assert tracker.committable == epoch.committable
                assert tracker.in_flight == len(epoch.read - epoch.ended)

    @invariant()
    def no_commit_passes_what_is_not_done(self) -> None:
        for number, durable in self.durable.items():
            offset, metadata = self.committed(number)
            runs = decode(metadata, offset, 10_000).runs
            assert {*range(offset), *(at for run in runs for at in range(*run))} <= durable

    @invariant()
    def every_record_is_accounted_for(self) -> None:
        """I3."""
        self.rig.check_conservation()

    def teardown(self) -> None:
        """Whatever happened, each record lets go of its place in the budget in the end."""
        if not hasattr(self, "rig"):
            return
        for number in [*self.owned]:
            self.lose_now(number)
        for _ in range(2):
            self.run(self.rig.answer_all())
            self.run(self.rig.acknowledge())
            self.run(self.rig.advance(60))
        assert (self.rig.budget.records, self.rig.budget.bytes) == (0, 0)
        self.run(self.rig.pipeline.close())
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run(self.rig.settle())
        self.loop.close()


TestLifeCycle = LifeCycle.TestCase
TestLifeCycle.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
