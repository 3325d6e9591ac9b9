"""A guest's manners: an app that is told to wait, or that fails alone, is left alone, and nobody else is."""

import pytest

from consumer.core.bulkhead import Bulkhead, Verdict
from consumer.core.outcome import Answer
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
        await serve(rig, 20)
        at = rig.assign("events", 9)
        rig.read(at, *(f"down:{index}" for index in range(5)))
        for index in range(5):
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
        assert sorted(rig.forwarded()) == [("retry.30s", f"down:{index}") for index in range(5)], "nor asked again"

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
    for _ in range(4):
        bulkhead.note("sick", failing=True)
    assert bulkhead.judge("sick") == Verdict(is_alone=False, is_failing=False), "too few of both"
    bulkhead.note("well", failing=False)
    bulkhead.note("sick", failing=True)
    assert bulkhead.judge("sick") == Verdict(is_alone=True, is_failing=True)
    for _ in range(6):
        bulkhead.note("sick", failing=False)
    assert bulkhead.judge("sick") == Verdict(is_alone=True, is_failing=False)
    for _ in range(200):
        bulkhead.note("another", failing=True)
    assert bulkhead.judge("sick") == Verdict(is_alone=False, is_failing=False), "the others fail; its own are forgotten"
