"""The end of an assignment, and what must go before it holds up its partition: drains, fences, stepping aside."""

from consumer.core.breaker import BreakerPolicy
from consumer.core.offset_map import OffsetMap, Run
from consumer.core.outcome import Answer, Fault
from tests.support.rig import Rig, on_the_bench

REFUSED_KEY = Answer(401)
UNAVAILABLE = Answer(503)


def test_a_drain_lets_what_is_on_the_wire_end_and_abandons_what_only_waits() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a", "game:b", "game:c")
        drain = rig.loop.create_task(rig.pipeline.drain([at], timeout_s=25, reason="revoked"))
        await rig.settle()
        assert not drain.done()
        await rig.answer(which="game:a")
        await rig.answer(which="game:b")
        assert [position.offset for position in await drain] == [2]
        assert rig.count("events_abandoned") == 1
        assert rig.transport.sent == ["game:a", "game:b"]
        assert rig.budget.records == 0

    on_the_bench(run, connections=2)


def test_what_an_earlier_owner_settled_is_not_sent_again() -> None:
    async def run(rig: Rig) -> None:
        before = OffsetMap((Run(1, 3), Run(4, 6)), since_s=1_600_000_000)
        at = rig.assign(before=before)
        rig.read(at, "game:a", "game:b", "game:c", "game:d")
        assert rig.transport.sent == ["game:a", "game:d"]
        assert rig.count("settled_before_skipped") == 2
        await rig.answer(which="game:d")
        await rig.advance(0.25)
        assert rig.published == {at.partition: 0}
        assert rig.maps[at.partition] == OffsetMap((Run(1, 6),), before.since_s), "and the next owner hears of it"
        await rig.answer(which="game:a")
        await rig.advance(0.25)
        assert rig.published == {at.partition: 4}
        rig.read(at, "game:e", "game:f")
        await rig.advance(0.25)
        assert rig.published == {at.partition: 6}, "passed without an answer"
        assert rig.budget.records == 0

    on_the_bench(run)


def test_a_late_answer_moves_nothing() -> None:
    """I4: not even when the same partition came back meanwhile."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a")
        rig.pipeline.fence([at], reason="lost")
        again = rig.assign()
        rig.read(again, "game:a")
        await rig.answer()
        assert rig.count("stale_answers") == 1
        assert again.tracker.committable == 0
        await rig.answer()
        assert again.tracker.committable == 1
        await rig.advance(0.25)
        assert rig.published == {again.partition: 1}

    on_the_bench(run)


def test_a_late_failure_is_not_tried_again() -> None:
    """The record is the next owner's by then. Found by the simulation."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a")
        rig.pipeline.fence([at], reason="lost")
        await rig.answer(Fault.TIMEOUT)
        await rig.advance(10)
        assert rig.transport.sent == ["game:a"]
        assert rig.budget.records == 0

    on_the_bench(run)


def test_a_try_that_is_cut_before_its_first_step_leaves_no_trace() -> None:
    """A task that is cancelled before it runs can't see to its record, which stayed in the in-flight budget for ever.

    Found by the simulation (seed 31057): each loss or drain that met a failing answer made the budget smaller.
    """

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a")
        _, _, answered = rig.transport.waiting.popleft()
        answered(Fault.TIMEOUT)
        rig.pipeline.fence([at], reason="lost")  # in the same step
        await rig.settle()
        assert rig.budget.records == 0
        assert at.active == 0

    on_the_bench(run)


def test_a_drain_ends_by_its_deadline_and_cuts_further_tries() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a", "game:b")
        await rig.answer(Answer(503, b"", "15"), which="game:a")
        drain = rig.loop.create_task(rig.pipeline.drain([at], timeout_s=3, reason="shutdown"))
        await rig.advance(3.25)
        assert drain.done()
        await rig.settle()
        assert rig.count("events_abandoned") == 2
        await rig.advance(60)
        assert rig.transport.sent == ["game:a", "game:b"], "no new try for records that another member owns"
        await rig.answer()
        assert rig.budget.records == 0

    on_the_bench(run)


def test_a_try_that_is_cut_before_it_began_lets_go_of_its_record() -> None:
    """A task that is cancelled before its first step never runs: its record kept its place in the budget for ever."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a")
        _, _, answered = rig.transport.waiting.popleft()
        answered(Answer(503))
        rig.pipeline.fence([at], reason="lost")  # in the same step of the event loop
        await rig.settle()
        assert rig.budget.records == 0
        assert at.active == 0

    on_the_bench(run)


def test_an_open_breaker_or_a_closed_lane_does_not_hold_up_a_drain() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:1")
        await rig.answer(REFUSED_KEY)
        rig.read(at, "game:b")
        await rig.answer(Answer(404))
        rig.read(at, "game:c")
        drain = rig.loop.create_task(rig.pipeline.drain([at], timeout_s=25, reason="revoked"))
        await rig.settle()
        assert drain.done(), "at once"
        assert rig.count("events_abandoned") == 3
        assert rig.budget.records == 0

    on_the_bench(run)


def test_records_of_other_partitions_stay_when_one_leaves() -> None:
    async def run(rig: Rig) -> None:
        stays, goes = rig.assign(number=0), rig.assign(number=1)
        rig.read(stays, "game:a", "game:b")
        rig.read(goes, "game:c")
        drain = rig.loop.create_task(rig.pipeline.drain([goes], timeout_s=25, reason="revoked"))
        await rig.settle()
        assert drain.done()
        await rig.answer_all()
        assert rig.count("events_delivered") == 2

    on_the_bench(run, connections=1)


def test_a_partition_whose_span_is_full_is_stopped_and_goes_on_below_half() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *[f"game:{i}" for i in range(20)])
        for index in range(1, 20):
            await rig.answer(which=f"game:{index}")
        assert rig.pipeline.over_span() == ([at], [])
        assert rig.pipeline.over_span() == ([], [])
        await rig.answer(which="game:0")
        assert rig.pipeline.over_span() == ([], [at])

    on_the_bench(run, max_span_records=20, breaker=BreakerPolicy())


def test_a_record_between_two_tries_steps_aside_before_it_stops_its_partition() -> None:
    """And what is on the wire does not: its answer may come yet."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:slow", "game:failing", *[f"game:{i}" for i in range(8)])
        await rig.answer(UNAVAILABLE, which="game:failing")
        for index in range(8):
            await rig.answer(which=f"game:{index}")
        assert rig.pipeline.over_span() == ([], [])
        await rig.acknowledge()
        assert rig.forwarded() == []
        rig.read(at, "game:x", "game:y")
        assert rig.pipeline.over_span() == ([], []), "half of the span: time to go"
        await rig.settle()
        await rig.acknowledge()
        assert rig.forwarded() == [("retry.30s", "game:failing")]
        ((_, _, headers),) = rig.forwarder.acknowledged
        assert headers["kochava-attempts"] == "1"
        assert headers["kochava-reason"] == "blocking"
        await rig.advance(60)
        assert rig.transport.sent.count("game:failing") == 1
        await rig.answer_all()
        await rig.advance(0.25)
        assert rig.published == {at.partition: 12}

    on_the_bench(run, max_span_records=21)


def test_a_lane_probe_that_steps_aside_makes_room_for_another() -> None:
    """Else its app's lane stayed closed until a restart. Found by the simulation (seed 30292)."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:1")
        await rig.answer(REFUSED_KEY)
        await rig.advance(5.25)
        await rig.answer(UNAVAILABLE, which="sick:1")  # the probe: the next one comes later, and it waits
        rig.read(at, *[f"game:{i}" for i in range(11)])
        await rig.answer_all()
        assert rig.pipeline.over_span() == ([], [])
        await rig.settle()
        await rig.acknowledge()
        assert rig.forwarded() == [("retry.30s", "sick:1")]
        rig.read(at, "sick:2")
        assert rig.transport.sent[-1] != "sick:2"
        await rig.advance(10.25)
        assert rig.transport.sent[-1] == "sick:2", "the next probe"
        await rig.answer_all()

    on_the_bench(run, max_span_records=21)


def test_a_record_whose_schema_is_away_steps_aside_with_its_attempts() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "schema", *[f"game:{i}" for i in range(10)])
        await rig.answer_all()
        rig.pipeline.over_span()
        await rig.acknowledge()
        assert rig.forwarded() == [("retry.30s", "schema")]
        assert rig.forwarder.acknowledged[0][2]["kochava-attempts"] == "0"
        rig.decoder.here.set()
        await rig.advance(0.25)
        assert rig.published == {at.partition: 11}
        assert "schema" not in rig.transport.sent

    on_the_bench(run, max_span_records=20)


def test_a_record_that_waits_for_its_lane_steps_aside_to_the_held_topic() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:1")
        await rig.answer(REFUSED_KEY)
        rig.read(at, *[f"game:{i}" for i in range(10)])
        await rig.answer_all()
        rig.pipeline.over_span()
        await rig.acknowledge()
        assert rig.forwarded() == [("held", "sick:1")]
        await rig.advance(0.25)
        assert rig.published == {at.partition: 11}

    on_the_bench(run, max_span_records=20)


def test_nothing_steps_aside_while_the_endpoint_is_away() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "schema", "game:a", *[f"game:{i}" for i in range(10)])
        for index in range(10):
            await rig.answer(which=f"game:{index}")
        await rig.answer(Answer(404))
        assert rig.delivery.breaker.is_open
        rig.pipeline.over_span()
        await rig.acknowledge()
        assert rig.forwarded() == []
        rig.pipeline.fence([at], reason="lost")

    on_the_bench(run, max_span_records=20)
