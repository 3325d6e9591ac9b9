"""A guest's manners: an app that is told to wait, or that fails alone, is left alone, and nobody else is."""

import asyncio

import pytest

from consumer.core.breaker import BreakerPolicy
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

    def note(app: str, count: int, *, failing: bool) -> None:
        for _ in range(count):
            bulkhead.note(app, 100.0, failing=failing)

    note("well", 9, failing=False)
    note("sick", 19, failing=True)
    assert bulkhead.judge("sick", 100.0) == Verdict(is_alone=False, is_failing=False), "too few of both"
    note("well", 1, failing=False)
    note("sick", 1, failing=True)
    assert bulkhead.judge("sick", 101.0) == Verdict(is_alone=True, is_failing=True)
    assert not bulkhead.judge("sick", 103.0).is_alone, "nobody was served lately"
    note("well", 1, failing=True)
    assert not bulkhead.judge("sick", 101.0).is_alone, "the first failure of another one tells"
    note("well", 1, failing=False)
    note("sick", 21, failing=False)
    assert bulkhead.judge("sick", 101.0) == Verdict(is_alone=True, is_failing=False)
    note("sick", 100, failing=True)
    bulkhead.forget("sick")
    assert not bulkhead.judge("sick", 101.0).is_failing, "it has recovered"


def test_an_outage_is_no_apps_own_however_unlike_their_traffic() -> None:
    """Excludes: what was served before the outage makes every app look alone, and the breaker waits."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        for index in range(300):
            rig.read(at, f"small:{index}" if index % 10 == 0 else f"large:{index}")
            await rig.answer(OK)
        failed = 0
        while not rig.delivery.breaker.is_open:
            rig.read(at, f"small:x{failed}" if failed % 10 == 0 else f"large:x{failed}")
            await rig.answer(DOWN)
            failed += 1
        assert failed <= 120, "the window of the breaker, and a little"
        assert rig.metrics.lane_closed.values == {}
        rig.pipeline.fence([at], reason="test")

    on_the_bench(run)


def test_told_to_wait_and_all_alone_nothing_is_held() -> None:
    """Excludes: what waits a second goes to the held topic and back, again and again."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:0")
        await rig.answer(Answer(429, b"", "3"))
        assert rig.budget.closed_for == {"retry_after"}
        rig.read(at, *(f"game:{index}" for index in range(1, 30)))
        await rig.advance(2.75)
        assert rig.transport.sent == ["game:0"]
        await rig.advance(0.75)
        assert rig.budget.closed_for == frozenset()
        assert len(rig.transport.waiting) == 1, "one is tried"
        await rig.answer(OK)
        await rig.answer_all(OK)
        await rig.advance(5)
        await rig.answer_all(OK)
        assert rig.count("events_delivered") == 30
        assert not rig.forwarder.acknowledged
        assert not rig.forwarder.waiting

    on_the_bench(run)


def test_a_lane_probe_that_fails_makes_room_for_another() -> None:
    """Excludes: its own further try waits for the answer of the probe that it is itself."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "one:1")
        await rig.answer(Answer(401))
        await rig.advance(5.25)
        await rig.answer(DOWN)
        asked = len(rig.transport.sent)
        await rig.advance(10.25)
        assert len(rig.transport.sent) == asked + 1
        await rig.answer(OK)
        assert rig.metrics.lane_closed.values == {("one",): 0}

    on_the_bench(run)


def test_after_an_outage_no_more_go_on_than_the_limit() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *(f"game:{index}" for index in range(60)))
        while not rig.delivery.breaker.is_open:
            await rig.answer(DOWN)
        await rig.answer_all(DOWN)
        await rig.advance(31)
        await rig.answer(OK)
        assert not rig.delivery.breaker.is_open
        most = 0
        while rig.count("events_delivered") < 60:
            most = max(most, len(rig.transport.waiting))
            if rig.transport.waiting:
                await rig.answer(OK)
            else:
                await rig.advance(0.25)
        assert 1 <= most <= 5

    on_the_bench(run, connections=5)


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
        assert {*rig.sweeps} == {2}, "then what was held comes back"
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
        await rig.advance(1)
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


def test_a_burst_that_is_late_once_makes_no_app_slow() -> None:
    """Excludes: the records of one partition, all of one app, wait in the air while something stalls."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        await serve(rig, 20)
        rig.read(at, *(f"game:{index}" for index in range(60)), *(f"well:{index}" for index in range(20)))
        await rig.advance(0.25)
        rig.loop.now += 1
        for index in range(30):
            await rig.answer(OK, which=f"game:{index}")
        for index in range(20):
            await rig.answer(OK, which=f"well:{index}")
        await serve(rig, 100)
        rig.read(at, *(f"game:{index}" for index in range(60, 70)))
        assert rig.transport.sent[-10:] == [f"game:{index}" for index in range(60, 70)]
        await rig.answer_all(OK)

    on_the_bench(run, connections=80)


def test_whoever_stands_still_itself_takes_no_app_for_slow() -> None:
    """Excludes: after a stall of the process the answers of some apps are read before those of others."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        await serve(rig, 20)
        rig.read(at, *(f"game:{index}" for index in range(20)), *(f"well:{index}" for index in range(20)))
        await rig.advance(0.25)
        rig.loop.now += 5
        rig.pipeline.tick()
        for index in range(20):
            await rig.answer(OK, which=f"well:{index}")
        rig.read(at, *(f"game:{index}" for index in range(20, 30)))
        assert rig.transport.sent[-10:] == [f"game:{index}" for index in range(20, 30)]
        await rig.answer_all(OK)

    on_the_bench(run, connections=80)


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


def test_a_key_whose_lane_is_closed_does_not_fill_the_memory() -> None:
    """Excludes: each of a key's events waits twenty seconds, one after another, and nothing else is read."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *(f"sick:{index}" for index in range(30)), key=b"a")
        await rig.answer(Answer(401))
        for _ in range(30):
            await rig.acknowledge()
            await rig.settle()
        assert rig.forwarded() == [("held", f"sick:{index}") for index in range(30)]
        assert rig.budget.records == 0

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


def test_the_endpoint_is_not_asked_with_an_app_that_was_told_to_wait() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "busy:1", "busy:2", "well:1")
        await rig.answer(DOWN, which="well:1")
        await rig.answer(DOWN, which="busy:1")
        assert rig.delivery.breaker.is_open
        await rig.answer(BUSY, which="busy:2")
        await rig.advance(1.25)
        assert [request.body for request, _, _ in rig.transport.waiting] == [b"well:1"], (
            "not the one that waits longest"
        )
        await rig.answer(OK)
        assert not rig.delivery.breaker.is_open
        await rig.advance(29)
        assert not rig.transport.waiting
        await rig.acknowledge()
        assert sorted(rig.forwarded()) == [("retry.30s", "busy:1"), ("retry.30s", "busy:2")]

    on_the_bench(run, breaker=BreakerPolicy(window_answers=4, min_answers=2))


def test_nor_is_it_asked_at_all_while_only_such_records_are_there() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "busy:1", "busy:2")
        await rig.answer(DOWN)
        await rig.answer(BUSY)
        assert rig.delivery.breaker.is_open
        await rig.advance(29)
        assert not rig.transport.waiting
        await rig.advance(4.5)
        assert len(rig.transport.waiting) == 1, "within a tenth more"
        await rig.answer(OK)
        await rig.advance(1)
        await rig.answer_all(OK)
        assert not rig.delivery.breaker.is_open
        assert rig.count("events_delivered") >= 1
        rig.pipeline.fence([at], reason="test")

    on_the_bench(run, breaker=BreakerPolicy(window_answers=4, min_answers=2))
