"""The order of steps, held on the bench: what ends where, and what a commit may pass."""

import pytest

from consumer.core.flood_guard import FloodGuard
from consumer.core.offset_map import Run
from consumer.core.outcome import Answer, Fault
from tests.support.rig import OK, PLAN, Rig, on_the_bench

REFUSED_KEY = Answer(401)
UNAVAILABLE = Answer(503)


def test_each_record_settles_by_itself_and_the_commit_waits_for_the_slowest() -> None:
    """I1."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a", "game:b", "game:c")
        await rig.answer(which="game:b")
        await rig.answer(which="game:c")
        await rig.advance(0.25)
        assert rig.published == {at.partition: 0}
        assert rig.maps[at.partition].runs == (Run(1, 3),)
        await rig.answer(which="game:a")
        await rig.advance(0.25)
        assert rig.published == {at.partition: 3}
        assert rig.metrics.events_delivered.values == {("events", "Purchase", "game"): 3}
        assert rig.budget.records == 0

    on_the_bench(run)


def test_a_gap_of_the_log_is_passed() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign(start=10)
        rig.read(at, "game:a", start=15)
        await rig.answer()
        await rig.advance(0.25)
        assert rig.published == {at.partition: 16}

    on_the_bench(run)


def test_a_record_that_comes_again_is_not_sent_again() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a")
        rig.read(at, "game:a", start=0)
        await rig.answer()
        rig.read(at, "game:a", start=0)
        assert rig.transport.sent == ["game:a"]
        assert rig.count("redelivered_skipped") == 2
        assert rig.budget.records == 0

    on_the_bench(run)


def test_no_more_requests_than_connections() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *[f"game:{i}" for i in range(10)])
        assert len(rig.transport.waiting) == 3
        await rig.answer()
        assert len(rig.transport.waiting) == 3
        await rig.answer_all()
        assert rig.count("events_delivered") == 10

    on_the_bench(run, connections=3)


def test_what_is_filtered_settles_and_what_is_bad_settles_by_the_acknowledgement() -> None:
    """I2."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "drop", "bad")
        await rig.advance(0.25)
        assert rig.published == {at.partition: 1}
        await rig.acknowledge()
        await rig.advance(0.25)
        assert rig.published == {at.partition: 2}
        (topic, record, headers) = rig.forwarder.acknowledged[0]
        assert topic == PLAN.dead_letter_topic
        assert (record.value, record.key) == (b"bad", b"key")
        assert headers["kochava-stage"] == "decode"
        assert headers["kochava-reason"] == "truncated"
        assert headers["kochava-origin-offset"] == "1"

    on_the_bench(run)


def test_a_failing_record_is_tried_then_waits_on_each_tier_then_is_a_dead_letter() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a")
        expected = ["retry.30s", "retry.5m", "dead-letter"]
        for hop, topic in enumerate(expected):
            for _ in range(4):
                await rig.answer(UNAVAILABLE)
                await rig.advance(5)
            await rig.acknowledge()
            assert rig.forwarded()[hop] == (topic, "game:a")
            _, _record, headers = rig.forwarder.acknowledged[hop]
            assert headers["kochava-attempts"] == str(4 * (hop + 1))
            tier = rig.assign(PLAN.topics[min(hop, 1)], hop)
            if hop < 2:
                rig.read(tier, "game:a", headers=tuple((name, value.encode()) for name, value in headers.items()))
        assert len(rig.transport.sent) == 12
        assert headers["kochava-origin-topic"] == "events"
        assert headers["kochava-reason"] == "exhausted_http_503"

    on_the_bench(run)


def test_success_on_a_second_try() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a")
        await rig.answer(Fault.RESET)
        await rig.advance(1)
        await rig.answer(OK)
        assert rig.count("events_delivered") == 1
        assert not rig.forwarder.waiting

    on_the_bench(run)


def test_retry_after_beyond_the_budget_chooses_the_tier_that_covers_it() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a")
        await rig.answer(Answer(429, b"", "120"))
        await rig.acknowledge()
        assert rig.forwarded() == [("retry.5m", "game:a")]

    on_the_bench(run)


def test_retry_after_within_the_budget_is_waited_for() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a")
        await rig.answer(Answer(429, b"", "7"))
        await rig.advance(6.5)
        assert len(rig.transport.sent) == 1
        await rig.advance(1)
        assert len(rig.transport.sent) == 2
        await rig.answer()

    on_the_bench(run)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"success":"0"}'])
def test_an_unconfirmed_answer_is_asked_once_more_and_then_given_up(body: bytes) -> None:
    """Each further try may count as revenue."""

    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a")
        for _ in range(2):
            await rig.answer(Answer(200, body))
            await rig.advance(5)
        await rig.acknowledge()
        assert rig.forwarded() == [("dead-letter", "game:a")]
        assert rig.forwarder.acknowledged[0][2]["kochava-reason"] == "unconfirmed"
        assert len(rig.transport.sent) == 2

    on_the_bench(run)


def test_an_unconfirmed_record_never_waits_on_a_tier_for_a_third_try() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a")
        await rig.answer(Answer(200, b""))
        await rig.advance(5)
        await rig.answer(Fault.TIMEOUT)
        await rig.acknowledge()
        assert rig.forwarded() == [("dead-letter", "game:a")]

    on_the_bench(run)


# -- I7: lanes


def test_a_refused_app_waits_alone() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:1", "well:1")
        await rig.answer(REFUSED_KEY, which="sick:1")
        rig.read(at, "sick:2", "sick:3", "sick:4", "well:2")
        await rig.answer_all(OK)
        await rig.acknowledge()
        assert rig.forwarded() == [("held", "sick:3"), ("held", "sick:4")]
        assert rig.count("events_delivered") == 2
        assert rig.budget.closed_for == frozenset()
        assert "kochava-attempts" in rig.forwarder.acknowledged[0][2]
        assert rig.forwarder.acknowledged[0][2]["kochava-attempts"] == "0"

    on_the_bench(run)


def test_the_lane_is_asked_again_and_its_records_go_out() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:1")
        await rig.answer(REFUSED_KEY)
        rig.read(at, "sick:2")
        assert len(rig.transport.waiting) == 0
        await rig.advance(5.25)
        assert len(rig.transport.waiting) == 1, "one probe"
        await rig.answer(OK)
        await rig.answer(OK)
        assert rig.count("events_delivered") == 2
        assert None in rig.sweeps, "what was held is read again"

    on_the_bench(run)


def test_a_lane_that_reopens_does_not_pass_an_open_breaker() -> None:
    """Excludes: records of the lane sent straight to an endpoint that is known to fail."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:1")
        await rig.answer(REFUSED_KEY)
        rig.read(at, "sick:2")
        await rig.advance(5.25)  # the lane's probe is on the wire
        rig.read(at, "well:1")
        await rig.answer(Answer(404), which="well:1")
        assert rig.budget.closed_for == {"breaker"}
        sent = len(rig.transport.sent)
        await rig.answer(OK, which="sick:1")  # sent before the breaker opened: it opens the lane, not the breaker
        await rig.settle()
        assert None in rig.sweeps, "the lane is open"
        assert rig.delivery.breaker.is_open
        assert len(rig.transport.sent) == sent, "sick:2 waits for the breaker"
        await rig.advance(31)
        await rig.answer_all(OK)
        assert rig.count("events_delivered") == 3

    on_the_bench(run)


def test_ten_minutes_of_401_make_no_dead_letter_and_hold_no_position() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        for index in range(20):
            rig.read(at, f"sick:{index}")
            while rig.transport.waiting:
                await rig.answer(REFUSED_KEY)
            await rig.advance(30)
            while rig.transport.waiting:
                await rig.answer(REFUSED_KEY)
            await rig.acknowledge()
        await rig.advance(30)
        while rig.transport.waiting:
            await rig.answer(REFUSED_KEY)
        await rig.acknowledge()
        assert {topic for topic, _ in rig.forwarded()} == {"held"}
        assert rig.count("events_dead_lettered") == 0
        assert at.tracker.committable >= 18

    on_the_bench(run)


def test_an_app_that_is_switched_off_is_held_and_never_asked() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "off:1", "hold")
        await rig.advance(120)
        await rig.acknowledge()
        assert rig.forwarded() == [("held", "off:1"), ("held", "hold")]
        assert rig.transport.sent == []

    on_the_bench(run, switched_off=frozenset({"off"}))


# -- I8: our own topics are away


def test_while_our_topics_are_away_nothing_is_read_and_nothing_is_lost() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "bad")
        for _ in range(20):
            await rig.acknowledge(problem="_MSG_TIMED_OUT")
            assert rig.budget.closed_for == {"forwarder"}
            await rig.advance(10.25)
        assert rig.published == {}
        await rig.acknowledge()
        await rig.advance(0.25)
        assert rig.published == {at.partition: 1}
        assert rig.budget.closed_for == frozenset()

    on_the_bench(run)


def test_a_flood_of_dead_letters_stops_reading_for_good() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *["bad"] * 10)
        await rig.acknowledge()
        assert rig.budget.closed_for == {"dead_letter_guard"}
        await rig.advance(3600)
        assert rig.budget.closed_for == {"dead_letter_guard"}

    on_the_bench(run, guard=FloodGuard(0.05, 100, 10))


# -- schemas


def test_an_unknown_schema_blocks_its_records_and_nobody_elses() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "schema", "game:b", "schema")
        await rig.answer(which="game:b")
        await rig.advance(600)
        assert rig.transport.sent == ["game:b"]
        assert not rig.forwarder.waiting
        rig.decoder.here.set()
        await rig.settle()
        await rig.answer_all()
        assert rig.count("events_delivered") == 3

    on_the_bench(run)
