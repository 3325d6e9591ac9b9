"""A guest's manners: an app that is told to wait, or that fails alone, is left alone, and nobody else is."""

import asyncio

import pytest

from consumer.core.bulkhead import Bulkhead, Verdict
from consumer.core.lane import FEW_RETRIES
from consumer.core.outcome import Answer
from consumer.core.rate import Rate
from tests.support.rig import OK, Rig, on_the_bench

BUSY = Answer(429, b"", "30")
DOWN = Answer(503)


async def serve(rig: Rig, count: int) -> None:
    """Let other apps be served."""
    at = rig.assign("events", rig.epoch)
    rig.read(at, *(f"well:{index}" for index in range(count)))
    for index in range(count):
        await rig.answer(OK, which=f"well:{index}")


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_holds_that_app_for_so_long_and_nobody_else(status: int) -> None:
    async def run(rig: Rig) -> None:
        await serve(rig, 10)
        at = rig.assign("events", 9)
        rig.read(at, "busy:1")
        await rig.answer(Answer(status, b"", "30"))
        await rig.acknowledge()
        assert rig.forwarded() == [("retry.30s", "busy:1")], "a tier can wait"
        rig.read(at, "busy:2", "busy:3", "busy:4", "well:x")
        assert [request.body for request, _, _ in rig.transport.waiting] == [b"well:x"]
        await rig.answer(OK)
        await rig.acknowledge()
        assert rig.forwarded()[1:] == [("held", "busy:4")], "two wait in memory"
        await rig.advance(19)
        assert not rig.transport.waiting
        sent = len(rig.transport.sent)
        await rig.advance(10.9)
        assert len(rig.transport.sent) == sent, "nothing of this app in 30 s"
        await rig.acknowledge()
        rig.read(at, "busy:5", "busy:6")
        await rig.advance(3.2)
        assert len(rig.transport.waiting) == 1, "then one is tried, within a tenth of the time"
        await rig.answer(OK)
        assert len(rig.transport.waiting) == 1
        await rig.answer_all(OK)
        assert None in rig.sweeps, "and what was held is read again"
        assert rig.budget.closed_for == frozenset()
        await rig.acknowledge()

    on_the_bench(run)


def test_a_probe_that_is_told_to_wait_waits_again() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "busy:1")
        await rig.answer(BUSY)
        await rig.acknowledge()
        await rig.advance(33.25)
        rig.read(at, "busy:2")
        assert len(rig.transport.waiting) == 1
        await rig.answer(BUSY)
        await rig.acknowledge()
        rig.read(at, "busy:3")
        await rig.advance(15)
        assert len(rig.transport.waiting) == 0
        rig.pipeline.fence([at], reason="test")

    on_the_bench(run)


def test_an_app_that_fails_alone_is_stopped_alone() -> None:
    async def run(rig: Rig) -> None:
        await serve(rig, 30)
        at = rig.assign("events", 9)
        rig.read(at, *(f"down:{index}" for index in range(20)))
        for index in range(20):
            await rig.answer(DOWN, which=f"down:{index}")
        assert rig.metrics.lane_closed.values == {("down",): 1}
        assert not rig.delivery.breaker.is_open
        rig.read(at, "down:x")
        assert not rig.transport.waiting, "it waits"
        await serve(rig, 3)
        await rig.advance(5.25)
        assert [request.body for request, _, _ in rig.transport.waiting] == [b"down:x"], "and is the probe"
        await rig.answer(OK)
        assert rig.metrics.lane_closed.values == {("down",): 0}
        await rig.acknowledge()
        assert sorted(rig.forwarded()) == sorted(("retry.30s", f"down:{index}") for index in range(20)), (
            "nor asked again"
        )

    on_the_bench(run)


def test_when_all_fail_it_is_the_endpoint() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *(f"app-{index % 4}:{index}" for index in range(40)))
        for _ in range(40):
            await rig.answer(DOWN)
        assert rig.delivery.breaker.is_open
        assert rig.metrics.lane_closed.values == {}, "nothing goes to the held topic"
        rig.pipeline.fence([at], reason="test")

    on_the_bench(run)


def test_a_bulkhead_compares_an_app_with_the_others() -> None:
    bulkhead = Bulkhead()
    for _ in range(9):
        bulkhead.note("well", failing=False)
    for _ in range(19):
        bulkhead.note("sick", failing=True)
    assert bulkhead.judge("sick") == Verdict(is_alone=False, is_failing=False), "too few of both"
    bulkhead.note("well", failing=False)
    bulkhead.note("sick", failing=True)
    assert bulkhead.judge("sick") == Verdict(is_alone=True, is_failing=True)
    for _ in range(21):
        bulkhead.note("sick", failing=False)
    assert bulkhead.judge("sick") == Verdict(is_alone=True, is_failing=False)
    for _ in range(500):
        bulkhead.note("another", failing=True)
    assert bulkhead.judge("sick") == Verdict(is_alone=False, is_failing=False), "the others fail; its own are forgotten"


# -- rates


def test_the_endpoint_gets_no_more_than_its_rate() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), *(f"game:{index}" for index in range(20)))
        assert len(rig.transport.sent) == 2, "the burst"
        for second in range(1, 5):
            for _ in range(100):
                await rig.advance(0.01)
            assert 1 + second * 4 <= len(rig.transport.sent) <= 2 + second * 4
        await rig.advance(1)
        await rig.answer_all(OK)
        assert rig.count("events_delivered") == 20

    on_the_bench(run, rate=Rate(4, burst=2))


def test_further_tries_count_in_the_rates() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a", "game:b")
        await rig.answer_all(DOWN)
        await rig.advance(0.75)
        assert len(rig.transport.sent) == 2
        await rig.advance(1.5)
        assert len(rig.transport.sent) == 4
        await rig.answer_all(OK)

    on_the_bench(run, rates={"game": Rate(1, burst=2)})


def test_an_app_beyond_its_rate_waits_and_is_held_and_nobody_else_is() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *(f"slow:{index}" for index in range(5)), "other:1")
        assert rig.transport.sent == ["slow:0", "other:1"]
        await rig.acknowledge()
        assert rig.forwarded() == [("held", "slow:3"), ("held", "slow:4")], "two wait in memory"
        await rig.advance(1.25)
        assert rig.transport.sent[2:] == ["slow:1"]
        await rig.advance(1)
        assert rig.transport.sent[3:] == ["slow:2"]
        assert not rig.sweeps
        await rig.advance(1)
        assert rig.sweeps == [2], "then what was held comes back"
        await rig.answer_all(OK)

    on_the_bench(run, rates={"slow": Rate(1, burst=1)})


# -- an app that is slow


def test_a_slow_app_has_its_share_of_the_wire_and_no_more() -> None:
    async def run(rig: Rig) -> None:
        def on_the_wire() -> int:
            return sum(request.body.startswith(b"slow:") for request, _, _ in rig.transport.waiting)

        at = rig.assign()
        await serve(rig, 20)
        rig.read(at, *(f"slow:{index}" for index in range(11)))
        await rig.advance(2)
        await serve(rig, 10)
        rig.read(at, "slow:a", "slow:b", "slow:c")
        assert on_the_wire() == 11, "others are answered, and it has more than an eighth of 80"
        await rig.acknowledge()
        assert rig.forwarded() == [("held", "slow:c")], "two wait in memory"
        for index in range(8):
            await rig.answer(OK, which=f"slow:{index}")
            await serve(rig, 10)
        await rig.advance(0.25)
        assert on_the_wire() == 5
        rig.read(at, *(f"slow:{index}" for index in range(11, 20)))
        assert on_the_wire() == 11
        rig.read(at, "well:x")
        assert rig.transport.sent[-1] == "well:x"
        await rig.acknowledge()
        await rig.answer_all(OK)

    on_the_bench(run, connections=80)


def test_one_slow_answer_makes_no_app_slow() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        await serve(rig, 20)
        rig.read(at, "game:x")
        for _ in range(70):
            rig.read(at, "game:a", "well:a")
            await rig.advance(0.1)
            await rig.answer(OK, which="game:a")
            await rig.answer(OK, which="well:a")
        await rig.answer(OK, which="game:x")
        rig.read(at, *(f"game:{index}" for index in range(20)))
        assert len(rig.transport.waiting) == 20
        await rig.answer_all(OK)

    on_the_bench(run)


def test_when_all_are_slow_nobody_is() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        for _ in range(30):
            rig.read(at, "one:x", "two:x")
            await rig.advance(2)
            await rig.answer_all(OK)
        rig.read(at, *(f"one:{index}" for index in range(10)), *(f"two:{index}" for index in range(6)))
        await rig.advance(2)
        assert len(rig.transport.waiting) == 16
        await rig.answer_all(OK)
        assert rig.forwarded() == []

    on_the_bench(run, connections=16)


# -- further tries


def test_further_tries_are_a_share_of_the_first_ones() -> None:
    """Excludes: a failing app triples what it sends."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        for index in range(240):
            rig.read(at, f"game:{index}", f"well:{index}")
            await rig.answer(OK, which=f"well:{index}")
            await rig.answer(DOWN if index % 6 == 0 else OK, which=f"game:{index}")
            for _ in range(3):
                await rig.advance(5)
                await rig.answer_all(DOWN)
            await rig.acknowledge()
        further = len(rig.transport.sent) - 480
        assert FEW_RETRIES <= further <= FEW_RETRIES + 0.2 * 240 < 120, "40 fail and would be tried three times more"

    on_the_bench(run)


# -- order


def test_events_of_one_key_go_one_after_another() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a1", "game:a2", "game:a3", key=b"a")
        rig.read(at, "game:b1", key=b"b")
        rig.read(at, "game:n1", "game:n2", key=None)
        assert rig.transport.sent == ["game:a1", "game:b1", "game:n1", "game:n2"]
        await rig.answer(DOWN, which="game:a1")
        await rig.advance(5)
        assert rig.transport.sent[4:] == ["game:a1"], "its further tries, too"
        await rig.answer(OK, which="game:a1")
        assert rig.transport.sent[5:] == ["game:a2"]
        await rig.answer(Answer(400), which="game:a2")
        assert rig.transport.sent[6:] == [], "until the broker has the dead letter"
        await rig.acknowledge()
        assert rig.transport.sent[6:] == ["game:a3"]
        await rig.answer_all(OK)
        rig.read(at, "game:a4", key=b"a")
        assert rig.transport.sent[7:] == ["game:a4"]
        await rig.answer_all(OK)

    on_the_bench(run, is_ordered=True)


def test_what_waits_for_its_turn_is_the_next_owners() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a1", "game:a2", key=b"a")
        drained = asyncio.ensure_future(rig.pipeline.drain([at], timeout_s=5, reason="revoked"))
        await rig.settle()
        await rig.answer(OK)
        (position,) = await drained
        assert position.offset == 1
        assert rig.transport.sent == ["game:a1"]
        assert rig.budget.records == 0

    on_the_bench(run, is_ordered=True)
