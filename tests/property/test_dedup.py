"""Copies from upstream: the memory against a model that anyone can read."""

from typing import Any

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.dedup import Dedup, Entry
from consumer.core.outcome import Answer, Fault
from consumer.envelope import Envelope
from consumer.settlement import End
from tests.support.rig import OK, Rig, on_the_bench

KEYS = [bytes([number]) for number in range(3)]


class DedupMachine(RuleBasedStateMachine):
    """The model keeps each delivery in a list, and for each event its key and where it stands."""

    @initialize(window=st.integers(1, 4))
    def begin(self, window: int) -> None:
        self.window = window
        self.memory: Dedup[int] = Dedup(window)
        self.made = 0
        self.key: dict[int, bytes] = {}
        self.sent: list[int] = []
        self.first: dict[bytes, int] = {}
        self.waiting: list[int] = []
        self.released: list[int] = []
        self.deliveries: list[bytes] = []

    @property
    def remembered(self) -> set[bytes]:
        """Each key counts from its delivery on until `window` others came after it."""
        kept: list[bytes] = []
        for key in self.deliveries:
            kept = kept if key in kept else [*kept, key][-self.window :]
        return set(kept)

    def enter(self, item: int, *, has_waited: bool) -> None:
        key = self.key[item]
        entry = self.memory.enter(key, item, has_waited=has_waited)
        if key in self.remembered:
            assert entry is Entry.DUPLICATE
        elif key not in self.first:
            assert entry is Entry.FIRST
            self.first[key] = item
            self.sent.append(item)
        elif has_waited:
            assert entry is Entry.BESIDE
            self.sent.append(item)
        else:
            assert entry is Entry.WAITS
            self.waiting.append(item)

    @rule(key=st.sampled_from(KEYS))
    def a_record_comes(self, key: bytes) -> None:
        self.made += 1
        self.key[self.made] = key
        self.enter(self.made, has_waited=False)

    @precondition(lambda self: self.released)
    @rule(data=st.data())
    def one_goes_on(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.released))
        self.released.remove(item)
        self.enter(item, has_waited=True)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), delivered=st.booleans())
    def one_ends(self, data: st.DataObject, delivered: bool) -> None:
        item = data.draw(st.sampled_from(self.sent))
        key = self.key[item]
        self.sent.remove(item)
        freed = self.memory.leave(key, item, delivered=delivered)
        if delivered:
            self.deliveries.append(key)
        ends_the_wait = key in self.first and (delivered or self.first[key] == item)
        assert list(freed) == [one for one in self.waiting if ends_the_wait and self.key[one] == key]
        self.waiting = [one for one in self.waiting if one not in freed]
        if ends_the_wait:
            del self.first[key]
        if not delivered:
            self.released += freed

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        assert sorted(self.memory.waiting()) == sorted(self.waiting)
        assert all(self.first[self.key[item]] in self.sent for item in self.waiting)

    @invariant()
    def it_is_bounded(self) -> None:
        assert self.memory._delivered == self.remembered
        assert sorted(self.memory._order) == sorted(self.remembered)
        assert len(self.remembered) <= self.window
        assert set(self.memory._on_their_way) == set(self.first)
        assert len(self.first) <= len(self.sent)


DedupMachine.TestCase.settings = settings(stateful_step_count=60, deadline=None)
TestDedup = DedupMachine.TestCase


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=60),
    st.integers(1, 8),
)
def test_no_event_is_lost_and_within_the_window_none_is_sent_after_its_delivery(
    log: list[tuple[bytes, bool]], window: int
) -> None:
    """One after the other: a key is only filtered after a delivery of the same key."""
    memory: Dedup[int] = Dedup(window)
    delivered: set[bytes] = set()
    for item, (key, succeeds) in enumerate(log):
        entry = memory.enter(key, item, has_waited=False)
        if entry is Entry.DUPLICATE:
            assert key in delivered
        else:
            assert entry is Entry.FIRST
            assert not (key in delivered and window >= len(KEYS))
            memory.leave(key, item, delivered=succeeds)
            delivered |= {key} if succeeds else set()


ANSWERS = [OK, OK, Answer(503), Answer(503, b"", "120"), Answer(400), Answer(401), Answer(200, b"?"), Fault.RESET]
STEPS = st.one_of(
    st.tuples(st.just("read"), st.lists(st.integers(1, 4), min_size=1, max_size=4)),
    st.tuples(st.just("answer"), st.sampled_from(ANSWERS), st.integers(0, 3)),
    st.tuples(st.sampled_from(["acknowledge", "advance", "span", "fence", "drain"])),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(STEPS, max_size=40), st.integers(1, 4))
def test_whatever_happens_every_record_ends_and_what_is_filtered_was_delivered(
    steps: list[tuple[Any, ...]], window: int
) -> None:
    """Nothing waits for ever, nothing leaks, no event is swallowed: I1, I3, I6."""

    async def run(rig: Rig) -> None:
        delivered: set[tuple[int, bytes | None]] = set()
        ending = rig.settlement.end

        def end(envelope: Envelope, end: End, labels: tuple[str, ...]) -> None:
            here = (envelope.assignment.epoch, envelope.record.value)
            if end == "delivered":
                delivered.add(here)
            if labels == ("duplicate",):
                assert here in delivered
            ending(envelope, end, labels)

        rig.settlement.end = end  # type: ignore[method-assign]
        log: list[str] = []
        at = rig.assign()
        for step in steps:
            match step:
                case ("read", numbers):
                    new = [f"app:{number}#{number}" for number in numbers]
                    log += new
                    rig.read(at, *new)
                case ("answer", answer, index) if rig.transport.waiting:
                    request, _, _ = rig.transport.waiting[index % len(rig.transport.waiting)]
                    await rig.answer(answer, which=request.body.decode())
                case ("acknowledge",):
                    await rig.acknowledge()
                case ("advance",):
                    await rig.advance(5)
                case ("span",):
                    rig.pipeline.over_span()
                case ("fence",):
                    ((_, position, _),) = rig.pipeline.fence([at], reason="lost")
                    at = rig.assign(start=position)
                    rig.read(at, *log[position:])
                case ("drain",):
                    drain = rig.loop.create_task(rig.pipeline.drain([at], timeout_s=1, reason="revoked"))
                    await rig.advance(2)
                    ((_, position, _),) = await drain
                    at = rig.assign(start=position)
                    rig.read(at, *log[position:])
            await rig.settle()
            rig.check_conservation()
        for _ in range(200):
            await rig.answer_all()
            await rig.acknowledge()
            if rig.budget.records == 0:
                break
            await rig.advance(1)
        assert rig.budget.records == 0, "nothing waits for ever"
        assert at.tracker.in_flight == 0
        assert at.tracker.committable == len(log)

    on_the_bench(run, window_records=window, connections=3, max_span_records=8)
